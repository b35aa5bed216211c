-- Which programs still work on this schema: the schema version that the oldest of them was made for.
-- A migration that takes away what older programs need replaces this function. Those then refuse to
-- start, and say why, instead of failing in the middle of an order.

CREATE FUNCTION awo.oldest_program() RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT 1::bigint $$;

REVOKE ALL ON FUNCTION awo.oldest_program() FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'service_role') THEN
        GRANT EXECUTE ON FUNCTION awo.oldest_program() TO service_role;
    END IF;
END $$;
