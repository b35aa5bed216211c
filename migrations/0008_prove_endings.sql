-- Proof of how runs end: a cancel with a time for each of its stages, a rescue with its reason, and
-- repositories that can be paused.

-- Facts of an attempt, each written once by its owner under its lease, with the database's time.
ALTER TABLE awo.attempts
    ADD COLUMN cancel_requested_at    timestamptz,  -- somebody wanted it to stop, while it ran
    ADD COLUMN cancel_acknowledged_at timestamptz,  -- its worker had heard of it
    ADD COLUMN tree_empty_at          timestamptz,  -- no process of its agents was left
    ADD COLUMN released_at            timestamptz,  -- ... and the lock of its sandbox was free
    -- Of a rescue: how long the lease was not renewed, and what was known of its worker:
    -- 'silent' (no heartbeats any more), 'draining' (silent while it drained), 'stopped' (it had
    -- said goodbye), 'alive' (it still beat, but no longer for this lease), 'unknown' (no such row).
    ADD COLUMN silent_seconds         double precision,
    ADD COLUMN worker_was             text CHECK (worker_was IN ('silent', 'draining', 'stopped', 'alive', 'unknown'));

-- How far each cancel has come. A stage without a time was not seen: not yet, or, in an attempt that
-- has ended, never, because its worker died.
CREATE VIEW awo.cancellations AS
SELECT c.work_order_id, c.job_id, c.epoch, c.outcome,
    c.requested_at, c.acknowledged_at, c.tree_empty_at, c.released_at,
    greatest(extract(epoch FROM c.acknowledged_at - c.requested_at), 0)::double precision AS acknowledged_seconds,
    greatest(extract(epoch FROM c.tree_empty_at - c.requested_at), 0)::double precision AS tree_empty_seconds,
    greatest(extract(epoch FROM c.released_at - c.requested_at), 0)::double precision AS released_seconds
FROM (
    SELECT j.work_order_id, a.job_id, a.epoch, a.outcome,
        -- Of the attempt that runs, what its worker has not heard of is known by the job alone.
        coalesce(a.cancel_requested_at, CASE WHEN a.ended_at IS NULL THEN j.cancel_requested_at END)
            AS requested_at,
        a.cancel_acknowledged_at AS acknowledged_at, a.tree_empty_at, a.released_at
    FROM awo.attempts a JOIN awo.jobs j ON j.id = a.job_id
    UNION ALL
    -- Cancelled while it waited: nothing ran, so it was done as it was asked for.
    SELECT j.work_order_id, j.id, NULL, 'cancelled', j.cancel_requested_at, j.cancel_requested_at,
        j.cancel_requested_at, j.cancel_requested_at
    FROM awo.jobs j WHERE j.state = 'cancelled' AND j.finished_at = j.cancel_requested_at
) c
WHERE c.requested_at IS NOT NULL;

-- The key of a repository by its address or its key; a row for it where there is none yet.
CREATE FUNCTION awo.known_repository(repo text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    key text;
BEGIN
    SELECT r.repo_key INTO key FROM awo.repositories r WHERE r.repo_key = known_repository.repo;
    IF FOUND THEN
        RETURN key;
    END IF;
    PERFORM awo.check_repository_url(known_repository.repo);
    key := awo.repo_key(known_repository.repo);
    INSERT INTO awo.repositories (repo_key, repository_url, display_name)
    VALUES (key, known_repository.repo, awo.display_name(key)) ON CONFLICT DO NOTHING;
    RETURN key;
END $$;

-- Stops claims of a repository's orders, by its address or its repo_key; running ones go on.
CREATE FUNCTION public.awo_pause_repository(repo text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    key text := awo.known_repository(awo_pause_repository.repo);
BEGIN
    UPDATE awo.repositories r SET paused_at = coalesce(r.paused_at, now()), updated_at = now()
    WHERE r.repo_key = key;
END $$;

CREATE FUNCTION public.awo_resume_repository(repo text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    key text := awo.known_repository(awo_resume_repository.repo);
BEGIN
    UPDATE awo.repositories r SET paused_at = NULL, updated_at = now() WHERE r.repo_key = key;
    PERFORM pg_notify('awo_jobs', '');
END $$;

REVOKE ALL ON FUNCTION awo.known_repository(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION public.awo_pause_repository(text), public.awo_resume_repository(text) FROM PUBLIC;

DO $$
DECLARE
    role text;
    fn text;
    functions CONSTANT text[] := ARRAY[
        'public.awo_pause_repository(text)', 'public.awo_resume_repository(text)'];
BEGIN
    FOREACH fn IN ARRAY functions LOOP
        -- Supabase grants everything new in public to its API roles by default.
        FOREACH role IN ARRAY ARRAY['anon', 'authenticated'] LOOP
            IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = role) THEN
                EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I', fn, role);
            END IF;
        END LOOP;
        IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'service_role') THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO service_role', fn);
        END IF;
    END LOOP;
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'service_role') THEN
        GRANT SELECT ON awo.cancellations TO service_role;
    END IF;
END $$;

NOTIFY pgrst, 'reload schema';
