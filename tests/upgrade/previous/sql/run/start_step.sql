-- Marks step $4 (number $5) of order $3 as started under job $1 and epoch $2, by agent $6 with
-- session $7. Answers no row when the epoch is stale or the step is finished.
WITH
owner AS (SELECT job_id, worker_id FROM awo.leases WHERE job_id = $1 AND epoch = $2 FOR KEY SHARE),
-- A run of the step that its owner could not end becomes history now.
unfinished AS (
    INSERT INTO public.agent_work_order_steps (agent_work_order_id, step_order, step_name, agent_name,
        attempt, success, error_class, error_message, duration_seconds, session_id, epoch, worker_id)
    SELECT $3, $5, s.step_name, $6, s.runs, false,
        CASE WHEN a.outcome = 'crashed' THEN 'lost_worker' WHEN a.outcome = 'cancelled' THEN 'cancelled' END,
        CASE WHEN a.outcome = 'crashed' THEN 'the worker died while it ran this step'
             WHEN a.outcome = 'cancelled' THEN 'the order was cancelled during this step'
             ELSE 'the worker was restarted during this step' END,
        greatest(extract(epoch FROM coalesce(a.ended_at, now()) - s.started_at), 0),
        s.session_id::text, s.epoch, a.worker_id
    FROM owner CROSS JOIN awo.steps s
    LEFT JOIN awo.attempts a ON a.job_id = s.job_id AND a.epoch = s.epoch
    WHERE s.job_id = $1 AND s.step_name = $4 AND s.finished_at IS NULL AND s.epoch <> $2
    ON CONFLICT (agent_work_order_id, step_name, attempt) DO NOTHING
),
started AS (
    INSERT INTO awo.steps (job_id, step_name, epoch, runs, session_id)
    SELECT $1, $4, $2, 1 + coalesce((
        SELECT max(h.attempt) FROM public.agent_work_order_steps h
        WHERE h.agent_work_order_id = $3 AND h.step_name = $4), 0), $7
    FROM owner
    -- The same epoch again is the same start, whose reply was lost.
    ON CONFLICT (job_id, step_name) DO UPDATE SET epoch = excluded.epoch, started_at = now(),
        runs = awo.steps.runs + (awo.steps.epoch <> excluded.epoch)::integer, session_id = coalesce(awo.steps.session_id, excluded.session_id)
    WHERE awo.steps.finished_at IS NULL
    RETURNING runs, session_id
),
phase AS (
    UPDATE public.agent_work_orders SET current_phase = $4
    FROM owner WHERE agent_work_order_id = $3
),
attempt AS (
    UPDATE awo.attempts a SET first_step = coalesce(a.first_step, $4)
    FROM owner WHERE a.job_id = $1 AND a.epoch = $2
)
SELECT runs, session_id FROM started
