-- How long a migration waits for one lock, and how long it may take whatever its role may otherwise: until the end of
-- the session or, with $1, of the transaction. The last one is new in PostgreSQL 17.
SELECT set_config('lock_timeout', '3s', $1), set_config('statement_timeout', '1h', $1),
    set_config('idle_in_transaction_session_timeout', '1h', $1),
    CASE WHEN current_setting('transaction_timeout', true) IS NOT NULL THEN set_config('transaction_timeout', '0', $1) END
