-- Waits that count in time, ends that are told in the log by the transaction that makes them, and a view of
-- what is stuck that leaves out a backlog.

-- An order waits out what fails outside of it: the model provider, the forge, a git server.
ALTER TABLE awo.jobs
    ADD COLUMN waiting_since timestamptz,             -- the first such failure since a step last succeeded
    ADD COLUMN gives_up_at   timestamptz,             -- one after that is the end
    ADD COLUMN waits         integer NOT NULL DEFAULT 0;  -- attempts that failed so since waiting_since

-- Adds an event to the log of an order, outside of a lease: its caller holds the lock of the job. Every
-- entry stays below 4 KiB as long as no text in it is longer than awo.short makes it.
CREATE FUNCTION awo.append_event(work_order text, epoch bigint, entry jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place bigint;
BEGIN
    UPDATE awo.log_heads h SET next_seq = h.next_seq + 1
    WHERE h.agent_work_order_id = append_event.work_order
    RETURNING h.next_seq - 1 INTO place;
    IF NOT FOUND THEN
        INSERT INTO awo.log_heads AS h (agent_work_order_id, epoch, next_seq)
        SELECT append_event.work_order, 0, coalesce(max(c.seq), 0) + 2
        FROM awo.log_chunks c WHERE c.agent_work_order_id = append_event.work_order
        ON CONFLICT (agent_work_order_id) DO UPDATE SET next_seq = h.next_seq + 1
        RETURNING h.next_seq - 1 INTO place;
    END IF;
    INSERT INTO awo.log_chunks (agent_work_order_id, seq, epoch, stream, line_count, data)
    VALUES (append_event.work_order, place, append_event.epoch, 'event', 1,
        convert_to(jsonb_strip_nulls(append_event.entry)::text || E'\n', 'UTF8'));
END $$;

-- A text as it may stand in an event: the row has all of it.
CREATE FUNCTION awo.short(words text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN length(words) > 800 THEN left(words, 800) || ' [cut]' ELSE words END
$$;

CREATE FUNCTION awo.utc(moment timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
$$;

-- After a job changed state: what that means is told in the log of its order, in the same transaction. So
-- an end is told once, in whatever way it came: settled, rescued, cancelled while it waited, set by hand.
CREATE FUNCTION awo.note_job_state() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    run   awo.attempts;
    entry jsonb;
BEGIN
    IF new.state IN ('succeeded', 'failed', 'cancelled') THEN
        entry := jsonb_build_object('attempt', new.attempt, 'max_attempts', new.max_attempts,
            'crash_count', new.crash_count, 'error_class', new.error_class, 'error', awo.short(new.last_error));
        entry := entry || CASE new.state
            WHEN 'succeeded' THEN jsonb_build_object('level', 'info', 'event', 'workflow_completed')
            WHEN 'failed' THEN jsonb_build_object('level', 'error', 'event', 'workflow_failed')
            ELSE jsonb_build_object('level', 'warning', 'event', 'workflow_failed', 'cancelled', true) END;
        PERFORM awo.append_event(new.work_order_id, new.lease_epoch, entry);
        RETURN NULL;
    END IF;
    -- The statement that gave it back has closed the attempt by now.
    SELECT * INTO run FROM awo.attempts a WHERE a.job_id = new.id AND a.epoch = new.lease_epoch;
    IF old.state <> 'running' OR run.outcome IS NULL THEN
        RETURN NULL;
    ELSIF run.outcome = 'retried' THEN
        entry := jsonb_build_object('level', 'warning', 'event', 'attempt_failed',
            'attempt', run.attempt, 'max_attempts', new.max_attempts,
            'error_class', new.error_class, 'error', awo.short(new.last_error), 'retry_at', awo.utc(new.run_at),
            'waiting_since', awo.utc(new.waiting_since), 'gives_up_at', awo.utc(new.gives_up_at), 'message',
            format('attempt %s failed, retried at %s because %s',
                CASE WHEN new.waiting_since IS NULL THEN run.attempt || ' of ' || new.max_attempts
                     ELSE run.attempt::text END,
                awo.utc(new.run_at), awo.short(new.last_error)));
        PERFORM awo.append_event(new.work_order_id, new.lease_epoch, entry);
    ELSIF run.outcome = 'interrupted' THEN
        PERFORM awo.append_event(new.work_order_id, new.lease_epoch, jsonb_build_object('level', 'warning',
            'event', 'workflow_interrupted', 'reason', awo.short(run.error_message),
            'retry_at', CASE WHEN new.run_at > now() THEN awo.utc(new.run_at) END));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER note_job_state AFTER UPDATE OF state ON awo.jobs
    FOR EACH ROW WHEN (old.state IS DISTINCT FROM new.state AND new.state <> 'running'
        AND new.work_order_id IS NOT NULL)
    EXECUTE FUNCTION awo.note_job_state();

-- As in 0003, and an order that waits for another attempt says until when.
CREATE OR REPLACE FUNCTION awo.follow_job_state() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE public.agent_work_orders o SET
        status = awo.order_status(new.state),
        started_at = CASE WHEN new.state = 'running' THEN coalesce(o.started_at, now()) ELSE o.started_at END,
        finished_at = new.finished_at,
        error_message = CASE WHEN new.state IN ('running', 'succeeded') THEN NULL
            WHEN new.state = 'queued' AND new.run_at > now() AND new.last_error IS NOT NULL THEN
                format('waiting until %s for the next attempt: %s', awo.utc(new.run_at), new.last_error)
            ELSE new.last_error END,
        -- A completed order keeps one class: no_changes, when there was nothing to deliver.
        error_class = CASE WHEN new.state = 'running' THEN NULL ELSE new.error_class END
    WHERE o.agent_work_order_id = new.work_order_id;
    RETURN NULL;
END $$;
DROP TRIGGER follow_job_state ON awo.jobs;
CREATE TRIGGER follow_job_state AFTER UPDATE OF state, run_at ON awo.jobs
    FOR EACH ROW WHEN (new.work_order_id IS NOT NULL AND (old.state IS DISTINCT FROM new.state
        OR (new.state = 'queued' AND old.run_at IS DISTINCT FROM new.run_at)))
    EXECUTE FUNCTION awo.follow_job_state();

-- The transitions of 0014, and what ends a wait: a fresh start, or somebody who wants it sooner.
CREATE OR REPLACE FUNCTION awo.guard_job_state() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text := coalesce(old.work_order_id, old.id::text);
    rival text;
    again CONSTANT boolean := new.state = 'queued' AND old.state IN ('succeeded', 'failed', 'cancelled');
BEGIN
    IF new.lease_epoch < old.lease_epoch THEN
        RAISE EXCEPTION 'lease_epoch of job % may not go back: it fences off stale owners', old.id
            USING ERRCODE = 'check_violation';
    ELSIF new.id <> old.id OR new.kind <> old.kind OR new.work_order_id IS DISTINCT FROM old.work_order_id THEN
        RAISE EXCEPTION 'id, kind and work_order_id of job % cannot change', old.id
            USING ERRCODE = 'check_violation';
    END IF;
    IF old.state = new.state THEN
        IF new.state = 'queued' AND new.run_at < old.run_at THEN
            new.waiting_since := NULL;
            new.gives_up_at := NULL;
            new.waits := 0;
        END IF;
        RETURN new;
    END IF;
    -- The engine drops the lease in the statement that ends a run; nobody else may do so.
    IF old.state = 'running' AND EXISTS (SELECT 1 FROM awo.leases l WHERE l.job_id = old.id) THEN
        RAISE EXCEPTION 'job % is running: call awo_cancel(''%'') to stop it, then awo_requeue(''%'') to run it again',
            old.id, name, name USING ERRCODE = 'object_in_use';
    END IF;
    IF NOT (CASE new.state
        WHEN 'queued'    THEN old.state IN ('running', 'waiting', 'failed', 'cancelled')
            OR EXISTS (SELECT 1 FROM awo.prompts p WHERE p.job_id = old.id AND p.answered_at IS NULL)
        WHEN 'running'   THEN old.state = 'queued' AND EXISTS (
            SELECT 1 FROM awo.leases l WHERE l.job_id = new.id AND l.epoch = new.lease_epoch)
        WHEN 'waiting'   THEN old.state = 'running'
        WHEN 'succeeded' THEN old.state = 'running'
        ELSE old.state IN ('queued', 'running', 'waiting')
    END) THEN
        RAISE EXCEPTION 'job % cannot go from % to %', old.id, old.state, new.state
            USING ERRCODE = 'check_violation',
                  HINT = CASE WHEN new.state = 'running' THEN 'Only a worker''s claim starts a job.'
                              ELSE 'awo_requeue runs an order again, awo_prompt goes on with one, awo_cancel ends it.' END;
    END IF;
    IF new.state IN ('succeeded', 'failed', 'cancelled') THEN
        new.finished_at := now();
    ELSE
        new.finished_at := NULL;
    END IF;
    -- An end by hand carries a class and a sentence too.
    IF new.state = 'failed' THEN
        new.last_error := coalesce(new.last_error, 'Set to failed by hand');
        new.error_class := coalesce(new.error_class, 'invalid');
    ELSIF new.state = 'cancelled' THEN
        new.error_class := 'cancelled';
        IF new.last_error IS NOT DISTINCT FROM old.last_error THEN
            new.last_error := coalesce(new.cancel_reason, 'Cancelled by request');
        END IF;
    END IF;
    IF again THEN
        SELECT coalesce(j.work_order_id, j.id::text) INTO rival FROM awo.jobs j
        WHERE j.idempotency_key = old.idempotency_key AND j.state IN ('queued', 'running', 'waiting');
        IF rival IS NOT NULL THEN
            RAISE EXCEPTION 'job % cannot be requeued: "%" is open with the same idempotency_key "%"',
                old.id, rival, old.idempotency_key USING ERRCODE = 'unique_violation';
        END IF;
        -- What had ended starts with fresh budgets.
        new.attempt := 0;
        new.crash_count := 0;
        new.interrupted_count := 0;
        new.waiting_since := NULL;
        new.gives_up_at := NULL;
        new.waits := 0;
        new.cancel_requested_at := NULL;
        new.cancel_reason := NULL;
        new.last_error := NULL;
        new.error_class := NULL;
        IF new.run_at = old.run_at THEN
            new.run_at := now();
        END IF;
    END IF;
    RETURN new;
END $$;

-- Orders that wait for another attempt, and after which failure. Where waiting_since is set the failure was
-- of something outside, and attempts go on until gives_up_at; elsewhere they are counted.
CREATE VIEW awo.waiting AS
SELECT j.work_order_id, j.id AS job_id, j.run_at AS next_attempt_at, j.error_class, j.last_error,
    j.attempt, j.max_attempts, j.waiting_since, j.gives_up_at, j.waits
FROM awo.jobs j WHERE j.state = 'queued' AND j.run_at > now() AND j.last_error IS NOT NULL;

-- As in 0004, but a backlog that waits for a free slot is not stuck: what nobody claims needs a person only
-- when no worker that lives takes orders from its queue, or one could and the queue stands still.
CREATE OR REPLACE VIEW awo.stuck AS
SELECT 'lease expired' AS problem, j.id AS job_id, j.work_order_id, now() - l.expires_at AS since
FROM awo.leases l JOIN awo.jobs j ON j.id = l.job_id WHERE l.expires_at < now() - interval '1 minute'
UNION ALL
SELECT 'no output', j.id, j.work_order_id, now() - l.progress_at
FROM awo.leases l JOIN awo.jobs j ON j.id = l.job_id WHERE l.progress_at < now() - interval '30 minutes'
UNION ALL
SELECT 'cancel not acknowledged', j.id, j.work_order_id, now() - j.cancel_requested_at
FROM awo.jobs j WHERE j.state = 'running' AND j.cancel_requested_at < now() - interval '1 minute'
UNION ALL
SELECT 'not claimed', j.id, j.work_order_id, now() - j.run_at
FROM (
    SELECT q.name, q.idle OR NOT q.served AS stands_still FROM (
        SELECT q.name,
            count(w.worker_id) > 0 AS served,
            -- Every worker has one slot of its own for maintenance.
            coalesce(bool_or((
                SELECT count(*) FROM awo.leases l JOIN awo.jobs j ON j.id = l.job_id
                WHERE l.worker_id = w.worker_id AND (j.queue = 'maintenance') = (q.name = 'maintenance')
            ) < CASE WHEN q.name = 'maintenance' THEN 1 ELSE w.max_concurrent END), false)
            -- A slot that is free for a moment, between two orders, is no sign of anything.
            AND NOT EXISTS (
                SELECT 1 FROM awo.leases l JOIN awo.jobs j ON j.id = l.job_id
                WHERE j.queue = q.name AND l.claimed_at > now() - interval '1 minute') AS idle
        FROM awo.queues q
        LEFT JOIN awo.workers w ON w.heartbeat_at >= now() - interval '1 minute' AND w.draining_at IS NULL
            AND w.stopped_at IS NULL AND (q.name = 'maintenance' OR q.name = ANY (w.queues))
        WHERE q.paused_at IS NULL
        GROUP BY q.name
    ) AS q
) AS q
JOIN awo.jobs j ON j.queue = q.name
JOIN awo.repositories r ON r.repo_key = j.repo_key AND r.paused_at IS NULL
WHERE q.stands_still AND j.state = 'queued' AND j.run_at < now() - interval '15 minutes'
  AND (SELECT count(*) FROM awo.leases l WHERE l.repo_key = j.repo_key) < r.max_concurrent;

-- What checks found that are too dear for every look at the metrics: any worker shows it, one worked it out.
CREATE TABLE awo.checks (
    name       text PRIMARY KEY,
    found      integer NOT NULL,
    checked_at timestamptz NOT NULL DEFAULT now()
);

REVOKE ALL ON FUNCTION awo.append_event(text, bigint, jsonb), awo.short(text), awo.utc(timestamptz),
    awo.note_job_state() FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'service_role') THEN
        GRANT SELECT ON awo.waiting, awo.checks TO service_role;
    END IF;
END $$;
