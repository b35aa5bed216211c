-- How long a migration waits for one lock: until the end of the session or, with $1, of the transaction.
SELECT set_config('lock_timeout', '3s', $1)
