-- Ends the running step $4 of order $3 under job $1 and epoch $2. With success ($7) the step is a
-- checkpoint with output $8 and never runs again; execute has then answered the prompts that waited.
-- $12 is the conversation the agent had, where it is not the planned one; that of execute is the one
-- a follow-up continues, so it is the order's. $13 is how far the agent was shut in; what its runs
-- consumed was counted before. Answers no row when the epoch is stale; said again under the same epoch it
-- changes nothing and answers the same.
WITH
owner AS (SELECT job_id, worker_id FROM awo.leases WHERE job_id = $1 AND epoch = $2 FOR KEY SHARE),
ended AS (
    UPDATE awo.steps s SET
        finished_at = CASE WHEN $7 THEN now() END,
        output = CASE WHEN $7 THEN $8::jsonb END,
        session_id = coalesce($12, s.session_id)
    FROM owner
    WHERE s.job_id = $1 AND s.step_name = $4 AND s.epoch = $2 AND s.finished_at IS NULL
    RETURNING s.runs, s.session_id, owner.worker_id,
        greatest(extract(epoch FROM now() - s.started_at), 0)::double precision AS duration
),
usage AS (
    SELECT coalesce(sum(r.input_tokens), 0)::bigint AS input, coalesce(sum(r.output_tokens), 0)::bigint AS output,
        coalesce(sum(r.cache_read_tokens), 0)::bigint AS cache_read,
        coalesce(sum(r.cache_creation_tokens), 0)::bigint AS cache_creation,
        coalesce(sum(r.cache_creation_1h_tokens), 0)::bigint AS cache_creation_1h,
        coalesce(sum(r.cost_usd), 0) AS cost_usd, coalesce(awo.sum_usage(r.usage_by_model), '{}') AS by_model
    FROM ended e JOIN awo.agent_runs r ON r.job_id = $1 AND r.step_name = $4 AND r.attempt = e.runs
    WHERE r.counted_at IS NOT NULL
),
history AS (
    INSERT INTO public.agent_work_order_steps (agent_work_order_id, step_order, step_name, agent_name,
        attempt, success, output, error_class, error_message, duration_seconds, session_id, epoch,
        worker_id, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens,
        cache_creation_1h_tokens, cost_usd, usage_by_model, isolation)
    SELECT $3, $5, $4, $6, e.runs, $7, $9, $10, $11, e.duration, e.session_id::text, $2,
        e.worker_id, u.input, u.output, u.cache_read, u.cache_creation,
        u.cache_creation_1h, u.cost_usd, u.by_model, $13
    FROM ended e CROSS JOIN usage u
    ON CONFLICT (agent_work_order_id, step_name, attempt) DO NOTHING
    RETURNING agent_work_order_id
),
conversation AS (
    UPDATE public.agent_work_orders o SET
        agent_session_id = e.session_id::text
    FROM ended e, history h
    WHERE o.agent_work_order_id = h.agent_work_order_id AND $4 = 'execute'
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
