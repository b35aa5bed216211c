-- Ends the running step $4 of order $3 under job $1 and epoch $2. With success ($7) the step is a
-- checkpoint with output $8 and never runs again; execute has then answered the prompts that waited.
-- $17 is the conversation the agent had, where it is not the planned one, $18 how far the agent was
-- shut in. Answers no row when the epoch is stale; said again under the same epoch it changes nothing
-- and answers the same.
WITH
owner AS (SELECT job_id, worker_id FROM awo.leases WHERE job_id = $1 AND epoch = $2 FOR KEY SHARE),
ended AS (
    UPDATE awo.steps s SET
        finished_at = CASE WHEN $7 THEN now() END,
        output = CASE WHEN $7 THEN $8::jsonb END,
        session_id = coalesce($17, s.session_id)
    FROM owner
    WHERE s.job_id = $1 AND s.step_name = $4 AND s.epoch = $2 AND s.finished_at IS NULL
    RETURNING s.runs, s.session_id, owner.worker_id,
        greatest(extract(epoch FROM now() - s.started_at), 0)::double precision AS duration
),
history AS (
    INSERT INTO public.agent_work_order_steps (agent_work_order_id, step_order, step_name, agent_name,
        attempt, success, output, error_class, error_message, duration_seconds, session_id, epoch,
        worker_id, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, cost_usd,
        isolation)
    SELECT $3, $5, $4, $6, e.runs, $7, $9, $10, $11, e.duration, e.session_id::text, $2,
        e.worker_id, $12, $13, $14, $15, $16::double precision, $18
    FROM ended e
    ON CONFLICT (agent_work_order_id, step_name, attempt) DO NOTHING
    RETURNING agent_work_order_id
),
totals AS (
    UPDATE public.agent_work_orders o SET
        total_input_tokens = o.total_input_tokens + $12,
        total_output_tokens = o.total_output_tokens + $13,
        total_cost_usd = o.total_cost_usd + $16::double precision::numeric,
        agent_session_id = coalesce(e.session_id::text, o.agent_session_id)
    FROM ended e, history h WHERE o.agent_work_order_id = h.agent_work_order_id
),
-- None can come in while the order runs: these are the ones that the run began with.
answered AS (
    UPDATE awo.prompts p SET answered_at = now()
    FROM ended e WHERE $7 AND $4 = 'execute' AND p.job_id = $1 AND p.answered_at IS NULL
)
SELECT e.duration FROM ended e
UNION ALL
-- Ended before, and the reply was lost.
SELECT greatest(extract(epoch FROM s.finished_at - s.started_at), 0)::double precision
FROM owner CROSS JOIN awo.steps s
WHERE s.job_id = $1 AND s.step_name = $4 AND s.epoch = $2 AND s.finished_at IS NOT NULL
