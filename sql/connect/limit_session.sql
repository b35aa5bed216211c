-- For the rest of this session: how long a statement may run and wait for one lock, and how long a
-- transaction may stand still. A statement whose client is gone, a claim above all, changes nothing later.
SELECT set_config('statement_timeout', '30s', false), set_config('lock_timeout', '5s', false),
    set_config('idle_in_transaction_session_timeout', '1min', false)
