-- Drops the prepared statements that a migration through a pooler has left on this server connection
-- under sqlx's names: the next client of the connection uses the same ones.
DO $$
DECLARE
    left_behind text;
BEGIN
    FOR left_behind IN SELECT name FROM pg_prepared_statements WHERE name ~ '^sqlx_s_[0-9]+$' LOOP
        EXECUTE format('DEALLOCATE %I', left_behind);
    END LOOP;
END $$
