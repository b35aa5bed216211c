-- Follow-up prompts: whoever ordered the work says more, and the order goes on in the same sandbox and
-- with the agent's conversation, also after it has completed.

CREATE TABLE awo.prompts (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id      bigint NOT NULL REFERENCES awo.jobs ON DELETE CASCADE,
    prompt      text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    answered_at timestamptz
);
COMMENT ON TABLE awo.prompts IS 'What was said to an order after its request; answered when the step execute ends well';
CREATE INDEX prompts_by_job ON awo.prompts (job_id, id);

-- The transitions of 0003, and one more: a job that has succeeded is queued again when a prompt waits.
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

-- The same for orders, whose status follows: completed to pending is the only news.
CREATE OR REPLACE FUNCTION awo.guard_order_status() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    due text;
BEGIN
    IF new.agent_work_order_id <> old.agent_work_order_id OR new.awo_job_id <> old.awo_job_id
       OR new.repository_url <> old.repository_url THEN
        RAISE EXCEPTION 'agent_work_order_id, awo_job_id and repository_url of order % cannot change', old.agent_work_order_id
            USING ERRCODE = 'check_violation';
    END IF;
    IF new.selected_commands IS DISTINCT FROM old.selected_commands THEN
        PERFORM awo.check_steps(new.selected_commands);
    END IF;
    IF new.user_request IS DISTINCT FROM old.user_request THEN
        PERFORM awo.check_user_request(new.user_request);
    END IF;
    IF new.status <> old.status THEN
        SELECT awo.order_status(j.state) INTO due FROM awo.jobs j WHERE j.id = new.awo_job_id;
        IF due IS DISTINCT FROM new.status THEN
            RAISE EXCEPTION 'status of order % cannot be set to "%": it follows the queue, call awo_cancel(''%'') or awo_requeue(''%'')',
                old.agent_work_order_id, new.status, old.agent_work_order_id, old.agent_work_order_id
                USING ERRCODE = 'check_violation';
        END IF;
        -- guard_job_state let the job be queued again; here it is enough to know the way.
        IF NOT (CASE new.status
            WHEN 'pending'   THEN old.status IN ('running', 'completed', 'failed', 'cancelled')
            WHEN 'running'   THEN old.status = 'pending'
            WHEN 'completed' THEN old.status = 'running'
            ELSE old.status IN ('pending', 'running')
        END) THEN
            RAISE EXCEPTION 'order % cannot go from % to %', old.agent_work_order_id, old.status, new.status
                USING ERRCODE = 'check_violation';
        END IF;
    END IF;
    new.updated_at := now();
    RETURN new;
END $$;

-- Says more to an order that does not run: the agent gets `prompt` in the same sandbox and, where it
-- still exists, the same conversation; then the steps behind execute run again. Answers the order's id.
CREATE FUNCTION public.awo_prompt(id text, prompt text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job awo.jobs := awo.job_of(awo_prompt.id);
    steps text[];
BEGIN
    IF awo_prompt.prompt IS NULL OR awo_prompt.prompt !~ '\S' THEN
        RAISE EXCEPTION 'prompt is empty: expected what the agent should do next, in words'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF octet_length(awo_prompt.prompt) > 262144 THEN
        RAISE EXCEPTION 'prompt is longer than 256 KiB: expected a shorter one, with details in files'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF job.work_order_id IS NULL THEN
        RAISE EXCEPTION 'job % is of kind %: expected a work order', job.id, job.kind
            USING ERRCODE = 'object_not_in_prerequisite_state';
    ELSIF job.state = 'running' THEN
        RAISE EXCEPTION 'job % is running: wait for its end, or call awo_cancel(''%'') to stop it, then awo_prompt again',
            job.id, job.work_order_id USING ERRCODE = 'object_in_use';
    END IF;
    SELECT o.selected_commands INTO steps FROM public.agent_work_orders o
    WHERE o.agent_work_order_id = job.work_order_id;
    IF array_position(steps, 'execute') IS NULL THEN
        RAISE EXCEPTION 'order "%" has no step execute, so there is no agent to go on: order the work anew with awo_enqueue',
            job.work_order_id USING ERRCODE = 'object_not_in_prerequisite_state';
    ELSIF (SELECT count(*) >= 100 FROM awo.prompts p WHERE p.job_id = job.id) THEN
        RAISE EXCEPTION 'order "%" has had 100 prompts: order the rest anew with awo_enqueue', job.work_order_id
            USING ERRCODE = 'program_limit_exceeded';
    END IF;
    steps := steps[array_position(steps, 'execute'):];
    INSERT INTO awo.prompts (job_id, prompt) VALUES (job.id, awo_prompt.prompt);
    DELETE FROM awo.steps s WHERE s.job_id = job.id AND s.step_name = ANY (steps);
    UPDATE public.agent_work_order_steps s SET superseded_at = now()
    WHERE s.agent_work_order_id = job.work_order_id AND s.step_name = ANY (steps) AND s.superseded_at IS NULL;
    UPDATE awo.jobs j SET state = 'queued'
    WHERE j.id = job.id AND j.state IN ('waiting', 'succeeded', 'failed', 'cancelled');
    RETURN job.work_order_id;
END $$;

REVOKE ALL ON FUNCTION public.awo_prompt(text, text) FROM PUBLIC;

DO $$
DECLARE
    role text;
BEGIN
    -- Supabase grants everything new in public to its API roles by default.
    FOREACH role IN ARRAY ARRAY['anon', 'authenticated'] LOOP
        IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('REVOKE ALL ON FUNCTION public.awo_prompt(text, text) FROM %I', role);
        END IF;
    END LOOP;
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'service_role') THEN
        GRANT EXECUTE ON FUNCTION public.awo_prompt(text, text) TO service_role;
        GRANT SELECT ON awo.prompts TO service_role;
    END IF;
END $$;

NOTIFY pgrst, 'reload schema';
