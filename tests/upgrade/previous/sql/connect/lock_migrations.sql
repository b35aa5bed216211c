-- One migration at a time, until its transaction ends: behind a pooler a lock of the session would
-- outlive its client.
SELECT pg_advisory_xact_lock(hashtextextended('awo._sqlx_migrations', 0))
