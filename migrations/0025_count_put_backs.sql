-- A job that cannot run through no fault of its own is put back: its sandbox is still locked, or its kind is
-- not known to the worker. How often in a row is counted, so that there is a backoff and an end.

ALTER TABLE awo.jobs
    ADD COLUMN put_back_count integer NOT NULL DEFAULT 0 CHECK (put_back_count >= 0),
    ADD COLUMN put_back_since timestamptz;              -- when the first of them was

-- What had ended and is queued again begins to count anew.
CREATE FUNCTION awo.forget_put_backs() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    new.put_back_count := 0;
    new.put_back_since := NULL;
    RETURN new;
END $$;
REVOKE ALL ON FUNCTION awo.forget_put_backs() FROM PUBLIC;
CREATE TRIGGER forget_put_backs BEFORE UPDATE OF state ON awo.jobs
    FOR EACH ROW WHEN (new.state = 'queued' AND old.state IN ('succeeded', 'failed', 'cancelled'))
    EXECUTE FUNCTION awo.forget_put_backs();
