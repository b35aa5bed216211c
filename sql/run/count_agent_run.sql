-- Counts what the run $3 of an agent consumed in the conversation $4, under job $1 and epoch $2, of which it need
-- not have been, or without an epoch when the job has ended: $5 to $10 are its tokens and its cost, $11 the same by model, $12 the total it reported, $13 what
-- it consumed after that. The order and the step, where it has ended, get it too. Answers whether it was counted
-- now, or no row when the epoch is stale; a run is counted once, however often and by whomever this is said.
WITH
held AS (SELECT job_id FROM awo.leases WHERE job_id = $1 AND epoch = $2 FOR KEY SHARE),
-- Nobody holds it, and nobody takes it up before this is done.
over AS (
    SELECT id AS job_id FROM awo.jobs
    WHERE id = $1 AND $2::bigint IS NULL AND state IN ('succeeded', 'failed', 'cancelled') FOR SHARE
),
owner AS (SELECT job_id FROM held UNION ALL SELECT job_id FROM over),
counted AS (
    UPDATE awo.agent_runs r SET
        counted_at = now(), session_id = $4,
        input_tokens = $5, output_tokens = $6, cache_read_tokens = $7,
        cache_creation_tokens = $8, cache_creation_1h_tokens = $9,
        cost_usd = $10::double precision, usage_by_model = $11::jsonb, reported = $12::jsonb, unreported = $13::jsonb
    FROM owner
    WHERE r.run_id = $3 AND r.job_id = $1 AND r.counted_at IS NULL
    RETURNING r.*
),
step AS (
    UPDATE public.agent_work_order_steps s SET
        input_tokens = s.input_tokens + c.input_tokens,
        output_tokens = s.output_tokens + c.output_tokens,
        cache_read_tokens = s.cache_read_tokens + c.cache_read_tokens,
        cache_creation_tokens = s.cache_creation_tokens + c.cache_creation_tokens,
        cache_creation_1h_tokens = s.cache_creation_1h_tokens + c.cache_creation_1h_tokens,
        cost_usd = s.cost_usd + c.cost_usd,
        usage_by_model = awo.add_usage(s.usage_by_model, c.usage_by_model)
    FROM counted c JOIN awo.jobs j ON j.id = c.job_id
    WHERE s.agent_work_order_id = j.work_order_id AND s.step_name = c.step_name AND s.attempt = c.attempt
),
totals AS (
    UPDATE public.agent_work_orders o SET
        total_input_tokens = o.total_input_tokens + c.input_tokens,
        total_output_tokens = o.total_output_tokens + c.output_tokens,
        total_cache_read_tokens = o.total_cache_read_tokens + c.cache_read_tokens,
        total_cache_creation_tokens = o.total_cache_creation_tokens + c.cache_creation_tokens,
        total_cache_creation_1h_tokens = o.total_cache_creation_1h_tokens + c.cache_creation_1h_tokens,
        total_cost_usd = o.total_cost_usd + c.cost_usd,
        usage_by_model = awo.add_usage(o.usage_by_model, c.usage_by_model)
    FROM counted c
    WHERE o.awo_job_id = c.job_id
)
SELECT EXISTS (SELECT FROM counted) FROM owner
