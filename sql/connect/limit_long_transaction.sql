-- Until the end of the transaction, for what may take long by its nature: the deletion of history.
SELECT set_config('statement_timeout', '5min', true), set_config('lock_timeout', '5s', true),
    set_config('idle_in_transaction_session_timeout', '1min', true)
