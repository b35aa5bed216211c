-- Orders whose pull request was merged or closed: they go on only when somebody asks for another one.

ALTER TABLE awo.jobs ADD COLUMN reopen boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN awo.jobs.reopen IS
    'Whether another pull request is opened where the one of the order was merged or closed; holds until the order completes';

-- As in 0014, and asked for another pull request with `reopen`.
DROP FUNCTION public.awo_prompt(text, text);

CREATE FUNCTION public.awo_prompt(id text, prompt text, reopen boolean DEFAULT false) RETURNS text
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
    -- What was asked for holds until the order completes; then it has to be asked for again.
    UPDATE awo.jobs j SET state = 'queued',
        reopen = coalesce(awo_prompt.reopen, false) OR (j.reopen AND j.state <> 'succeeded')
    WHERE j.id = job.id AND j.state IN ('queued', 'waiting', 'succeeded', 'failed', 'cancelled');
    RETURN job.work_order_id;
END $$;

-- Requeues as the function without `reopen` does, and asks for another pull request where that is true.
CREATE FUNCTION public.awo_requeue(id text, reopen boolean, from_step text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job awo.jobs := awo.job_of(awo_requeue.id);
BEGIN
    IF awo_requeue.reopen THEN
        UPDATE awo.jobs j SET reopen = true WHERE j.id = job.id;
    END IF;
    RETURN public.awo_requeue(id => awo_requeue.id, from_step => awo_requeue.from_step);
END $$;

REVOKE ALL ON FUNCTION public.awo_prompt(text, text, boolean), public.awo_requeue(text, boolean, text) FROM PUBLIC;

DO $$
DECLARE
    role text;
BEGIN
    -- Supabase grants everything new in public to its API roles by default.
    FOREACH role IN ARRAY ARRAY['anon', 'authenticated'] LOOP
        IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('REVOKE ALL ON FUNCTION public.awo_prompt(text, text, boolean), public.awo_requeue(text, boolean, text) FROM %I', role);
        END IF;
    END LOOP;
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'service_role') THEN
        GRANT EXECUTE ON FUNCTION public.awo_prompt(text, text, boolean), public.awo_requeue(text, boolean, text) TO service_role;
    END IF;
END $$;

NOTIFY pgrst, 'reload schema';
