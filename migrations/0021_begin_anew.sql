-- An order can begin anew: awo_requeue from create-branch counts up, and the run that finds work of an earlier
-- count saves it and starts from the present head of the base branch.

ALTER TABLE awo.jobs ADD COLUMN restarts integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN awo.jobs.restarts IS 'How often awo_requeue has begun the order anew, from create-branch';

-- As in 0004, and create-branch, which every other step builds on, begins anew.
CREATE OR REPLACE FUNCTION public.awo_requeue(id text, from_step text DEFAULT NULL) RETURNS text
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
        IF awo_requeue.from_step = 'create-branch' THEN
            UPDATE awo.jobs j SET restarts = j.restarts + 1 WHERE j.id = job.id;
        END IF;
    END IF;
    IF job.state IN ('waiting', 'failed', 'cancelled') THEN
        UPDATE awo.jobs j SET state = 'queued' WHERE j.id = job.id AND j.state = job.state;
    ELSE
        UPDATE awo.jobs j SET run_at = least(j.run_at, now()) WHERE j.id = job.id AND j.state = 'queued';
        PERFORM pg_notify('awo_jobs', job.queue);
    END IF;
    RETURN coalesce(job.work_order_id, job.id::text);
END $$;
