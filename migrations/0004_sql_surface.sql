-- What people and other programs call: functions in public (reachable as RPC) and views in awo.

-- Orders work. With an idempotency key, a second call while the first order is open answers its id.
CREATE FUNCTION public.awo_enqueue(
    repository_url text,
    user_request text,
    selected_commands text[] DEFAULT NULL,
    github_issue_number text DEFAULT NULL,
    priority integer DEFAULT 0,
    run_at timestamptz DEFAULT NULL,
    idempotency_key text DEFAULT NULL,
    agent_work_order_id text DEFAULT NULL,
    traceparent text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    order_id text;
    broken   text;
BEGIN
    IF awo_enqueue.priority NOT BETWEEN -32768 AND 32767 THEN
        RAISE EXCEPTION 'priority is %: expected -32768 to 32767', awo_enqueue.priority
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR attempt IN 1..5 LOOP
        IF awo_enqueue.idempotency_key IS NOT NULL THEN
            SELECT j.work_order_id INTO order_id FROM awo.jobs j
            WHERE j.idempotency_key = awo_enqueue.idempotency_key
              AND j.state IN ('queued', 'running', 'waiting');
            IF order_id IS NOT NULL THEN
                RETURN order_id;
            END IF;
        END IF;
        BEGIN
            INSERT INTO awo.jobs AS j (kind, priority, run_at, idempotency_key, traceparent, payload)
            VALUES ('work_order', coalesce(awo_enqueue.priority, 0)::smallint,
                coalesce(awo_enqueue.run_at, now()), awo_enqueue.idempotency_key, awo_enqueue.traceparent,
                jsonb_strip_nulls(jsonb_build_object(
                    'agent_work_order_id', awo_enqueue.agent_work_order_id,
                    'repository_url', awo_enqueue.repository_url,
                    'user_request', awo_enqueue.user_request,
                    'selected_commands', to_jsonb(awo_enqueue.selected_commands),
                    'github_issue_number', awo_enqueue.github_issue_number)))
            RETURNING j.work_order_id INTO order_id;
            RETURN order_id;
        EXCEPTION WHEN unique_violation THEN
            GET STACKED DIAGNOSTICS broken = CONSTRAINT_NAME;
            IF broken IN ('jobs_work_order', 'agent_work_orders_pkey') THEN
                RAISE EXCEPTION 'agent_work_order_id "%" is taken: leave it out, or name another',
                    awo_enqueue.agent_work_order_id USING ERRCODE = 'unique_violation';
            ELSIF broken <> 'jobs_idempotency_key' OR attempt = 5 THEN
                RAISE;
            END IF;
            -- Somebody else stored the same key just now: answer with theirs, or try again should
            -- it have ended meanwhile. A transaction that may not see theirs gives up.
        END;
    END LOOP;
END $$;

-- The job of an order, by the order's id or the job's number; locked, or an error if there is none.
CREATE FUNCTION awo.job_of(id text) RETURNS awo.jobs
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job awo.jobs;
BEGIN
    SELECT * INTO job FROM awo.jobs j WHERE j.work_order_id = job_of.id FOR UPDATE;
    IF NOT FOUND AND job_of.id ~ '^[0-9]{1,18}$' THEN
        SELECT * INTO job FROM awo.jobs j WHERE j.id = job_of.id::bigint FOR UPDATE;
    END IF;
    IF job.id IS NULL THEN
        RAISE EXCEPTION 'there is no work order "%"', job_of.id USING ERRCODE = 'no_data_found';
    END IF;
    RETURN job;
END $$;

-- Cancels: at once when queued; a running order is told to stop, and reports when it has.
-- Answers 'cancelled', 'requested' or, for an order that had ended already, its state.
CREATE FUNCTION public.awo_cancel(id text, reason text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job awo.jobs := awo.job_of(awo_cancel.id);
    words text := 'Cancelled' || coalesce(': ' || awo_cancel.reason, ' by request');
BEGIN
    IF job.state IN ('succeeded', 'failed', 'cancelled') THEN
        RETURN job.state::text;
    ELSIF job.state = 'running' THEN
        UPDATE awo.jobs j SET cancel_requested_at = coalesce(j.cancel_requested_at, now()),
            cancel_reason = coalesce(j.cancel_reason, words) WHERE j.id = job.id;
        PERFORM pg_notify('awo_cancel', job.id::text);
        RETURN 'requested';
    END IF;
    UPDATE awo.jobs j SET state = 'cancelled', cancel_requested_at = now(), cancel_reason = words,
        last_error = words, error_class = 'cancelled'
    WHERE j.id = job.id AND j.state IN ('queued', 'waiting');
    RETURN 'cancelled';
END $$;

-- Runs an order again that failed or was cancelled: at the step where it stopped, or from an
-- earlier one, whose finished work is then done again.
CREATE FUNCTION public.awo_requeue(id text, from_step text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job awo.jobs := awo.job_of(awo_requeue.id);
    steps text[];
BEGIN
    IF job.state = 'running' THEN
        RAISE EXCEPTION 'job % is running: call awo_cancel(''%'') to stop it, then awo_requeue(''%'') to run it again',
            job.id, awo_requeue.id, awo_requeue.id USING ERRCODE = 'object_in_use';
    ELSIF job.state = 'succeeded' THEN
        RAISE EXCEPTION 'order "%" has completed: order it anew with awo_enqueue', awo_requeue.id
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF awo_requeue.from_step IS NOT NULL THEN
        SELECT o.selected_commands INTO steps FROM public.agent_work_orders o
        WHERE o.agent_work_order_id = job.work_order_id;
        IF array_position(steps, awo_requeue.from_step) IS NULL THEN
            RAISE EXCEPTION 'from_step is "%": expected one of %', awo_requeue.from_step,
                array_to_string(coalesce(steps, '{}'), ', ') USING ERRCODE = 'invalid_parameter_value';
        END IF;
        steps := steps[array_position(steps, awo_requeue.from_step):];
        DELETE FROM awo.steps s WHERE s.job_id = job.id AND s.step_name = ANY (steps);
        UPDATE public.agent_work_order_steps s SET superseded_at = now()
        WHERE s.agent_work_order_id = job.work_order_id AND s.step_name = ANY (steps)
          AND s.superseded_at IS NULL;
    END IF;
    IF job.state IN ('waiting', 'failed', 'cancelled') THEN
        UPDATE awo.jobs j SET state = 'queued' WHERE j.id = job.id AND j.state = job.state;
    ELSE
        UPDATE awo.jobs j SET run_at = least(j.run_at, now()) WHERE j.id = job.id AND j.state = 'queued';
        PERFORM pg_notify('awo_jobs', job.queue);
    END IF;
    RETURN coalesce(job.work_order_id, job.id::text);
END $$;

-- Stops claims from a queue; running orders go on.
CREATE FUNCTION public.awo_pause_queue(name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE awo.queues q SET paused_at = coalesce(q.paused_at, now()) WHERE q.name = awo_pause_queue.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no queue "%"', awo_pause_queue.name USING ERRCODE = 'no_data_found';
    END IF;
END $$;

CREATE FUNCTION public.awo_resume_queue(name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE awo.queues q SET paused_at = NULL WHERE q.name = awo_resume_queue.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no queue "%"', awo_resume_queue.name USING ERRCODE = 'no_data_found';
    END IF;
    PERFORM pg_notify('awo_jobs', awo_resume_queue.name);
END $$;

-- How many orders of one repository may run at once, by its address or its repo_key. Lowering it
-- lets running ones finish.
CREATE FUNCTION public.awo_set_repository_limit(repo text, n integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    key text;
BEGIN
    IF awo_set_repository_limit.n IS NULL OR awo_set_repository_limit.n NOT BETWEEN 0 AND 64 THEN
        RAISE EXCEPTION 'n is %: expected 0 to 64', awo_set_repository_limit.n
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    UPDATE awo.repositories r
    SET max_concurrent = awo_set_repository_limit.n::smallint, updated_at = now()
    WHERE r.repo_key = awo_set_repository_limit.repo;
    IF NOT FOUND THEN
        PERFORM awo.check_repository_url(awo_set_repository_limit.repo);
        key := awo.repo_key(awo_set_repository_limit.repo);
        INSERT INTO awo.repositories AS r (repo_key, repository_url, display_name, max_concurrent)
        VALUES (key, awo_set_repository_limit.repo, awo.display_name(key), awo_set_repository_limit.n::smallint)
        ON CONFLICT (repo_key) DO UPDATE SET max_concurrent = excluded.max_concurrent, updated_at = now();
    END IF;
    PERFORM pg_notify('awo_jobs', '');
END $$;

-- Waiting jobs and the oldest wait, by queue and repository.
CREATE VIEW awo.queue_depth AS
SELECT queue, repo_key,
    count(*) FILTER (WHERE run_at <= now()) AS ready,
    count(*) FILTER (WHERE run_at > now()) AS scheduled,
    max(now() - run_at) FILTER (WHERE run_at <= now()) AS oldest_wait
FROM awo.jobs WHERE state = 'queued' GROUP BY queue, repo_key;

-- What runs now, where, for how long, and how alive it looks.
CREATE VIEW awo.running_now AS
SELECT j.id AS job_id, j.work_order_id, j.kind, l.repo_key, l.slot, j.attempt, l.epoch, l.worker_id,
    w.hostname, w.pid, l.progress ->> 'step' AS step,
    now() - l.claimed_at AS running_for, now() - l.heartbeat_at AS heartbeat_age,
    now() - l.progress_at AS silent_for, l.expires_at, j.cancel_requested_at
FROM awo.leases l JOIN awo.jobs j ON j.id = l.job_id LEFT JOIN awo.workers w USING (worker_id);

-- What needs a person: expired leases nobody rescues, silent agents, ready jobs nobody takes.
CREATE VIEW awo.stuck AS
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
FROM awo.jobs j
JOIN awo.queues q ON q.name = j.queue AND q.paused_at IS NULL
JOIN awo.repositories r ON r.repo_key = j.repo_key AND r.paused_at IS NULL
WHERE j.state = 'queued' AND j.run_at < now() - interval '15 minutes'
  AND (SELECT count(*) FROM awo.leases l WHERE l.repo_key = j.repo_key) < r.max_concurrent;

-- Ended jobs per hour of the last day.
CREATE VIEW awo.throughput AS
SELECT date_trunc('hour', finished_at) AS hour, kind,
    count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
    count(*) FILTER (WHERE state = 'failed') AS failed,
    count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
    sum(crash_count) AS crashes, sum(interrupted_count) AS interruptions,
    avg(finished_at - created_at) FILTER (WHERE state = 'succeeded') AS average_time
FROM awo.jobs WHERE finished_at > now() - interval '24 hours' GROUP BY 1, 2;

-- Empty when all is well; every row is a broken promise.
CREATE VIEW awo.invariants AS
SELECT 'running without lease' AS broken, j.id::text AS subject FROM awo.jobs j
WHERE j.state = 'running' AND NOT EXISTS (SELECT 1 FROM awo.leases l WHERE l.job_id = j.id)
UNION ALL
SELECT 'lease without running job', l.job_id::text FROM awo.leases l JOIN awo.jobs j ON j.id = l.job_id
WHERE j.state <> 'running' OR j.lease_epoch <> l.epoch
UNION ALL
SELECT 'order status differs from job state', o.agent_work_order_id
FROM public.agent_work_orders o JOIN awo.jobs j ON j.id = o.awo_job_id
WHERE o.status <> awo.order_status(j.state)
UNION ALL
-- Also true for a while after a limit was lowered: the surplus drains.
SELECT 'repository over its limit', r.repo_key FROM awo.repositories r
WHERE (SELECT count(*) FROM awo.leases l WHERE l.repo_key = r.repo_key) > r.max_concurrent
UNION ALL
SELECT 'gap in the log', c.agent_work_order_id FROM awo.log_chunks c
GROUP BY c.agent_work_order_id HAVING max(c.seq) - min(c.seq) + 1 <> count(*)
UNION ALL
SELECT 'side effect without result', e.job_id::text FROM awo.side_effects e JOIN awo.jobs j ON j.id = e.job_id
WHERE j.state = 'succeeded' AND e.completed_at IS NULL
UNION ALL
SELECT 'attempt left open', a.job_id::text FROM awo.attempts a JOIN awo.jobs j ON j.id = a.job_id
WHERE a.ended_at IS NULL AND NOT (j.state = 'running' AND j.lease_epoch = a.epoch);

-- Rights: nobody but the owner and, where Supabase has made it, service_role.
ALTER TABLE public.agent_work_orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.agent_work_order_steps ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.agent_work_order_artifacts ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON public.agent_work_orders, public.agent_work_order_steps,
    public.agent_work_order_artifacts FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA awo FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION
    public.awo_enqueue(text, text, text[], text, integer, timestamptz, text, text, text),
    public.awo_cancel(text, text), public.awo_requeue(text, text), public.awo_pause_queue(text),
    public.awo_resume_queue(text), public.awo_set_repository_limit(text, integer) FROM PUBLIC;

DO $$
DECLARE
    role text;
    fn text;
    functions CONSTANT text[] := ARRAY[
        'public.awo_enqueue(text, text, text[], text, integer, timestamptz, text, text, text)',
        'public.awo_cancel(text, text)', 'public.awo_requeue(text, text)',
        'public.awo_pause_queue(text)', 'public.awo_resume_queue(text)',
        'public.awo_set_repository_limit(text, integer)'];
    tbl text;
    tables CONSTANT text[] := ARRAY['agent_work_orders', 'agent_work_order_steps', 'agent_work_order_artifacts'];
    sequences CONSTANT text[] := ARRAY['agent_work_order_steps_id_seq', 'agent_work_order_artifacts_id_seq'];
BEGIN
    -- Supabase grants everything new in public to its API roles by default.
    FOREACH role IN ARRAY ARRAY['anon', 'authenticated'] LOOP
        IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = role) THEN
            FOREACH fn IN ARRAY functions LOOP
                EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I', fn, role);
            END LOOP;
            FOREACH tbl IN ARRAY tables LOOP
                EXECUTE format('REVOKE ALL ON public.%I FROM %I', tbl, role);
            END LOOP;
            FOREACH tbl IN ARRAY sequences LOOP
                EXECUTE format('REVOKE ALL ON SEQUENCE public.%I FROM %I', tbl, role);
            END LOOP;
        END IF;
    END LOOP;
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'service_role') THEN
        FOREACH fn IN ARRAY functions LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO service_role', fn);
        END LOOP;
        FOREACH tbl IN ARRAY tables LOOP
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON public.%I TO service_role', tbl);
            EXECUTE format('CREATE POLICY %I ON public.%I TO service_role USING (true) WITH CHECK (true)',
                tbl || '_service_role', tbl);
        END LOOP;
        GRANT USAGE ON SCHEMA awo TO service_role;
        GRANT SELECT ON ALL TABLES IN SCHEMA awo TO service_role;
        GRANT INSERT, UPDATE ON awo.jobs TO service_role;
        -- A view calls functions with the rights of its reader.
        GRANT EXECUTE ON FUNCTION awo.order_status(awo.job_state) TO service_role;
    END IF;
END $$;

-- PostgREST reads the list of functions once; without a listener this is nothing.
NOTIFY pgrst, 'reload schema';
