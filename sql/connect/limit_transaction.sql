-- The same until the end of the transaction, where the server connection is not ours alone.
SELECT set_config('statement_timeout', '30s', true), set_config('lock_timeout', '5s', true),
    set_config('idle_in_transaction_session_timeout', '1min', true)
