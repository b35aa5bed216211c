-- Says how much of the dollars is an estimate: of runs that ended without a report of their agent.

-- As before, and what of the dollars was estimated from tokens.
CREATE OR REPLACE VIEW awo.costs AS
SELECT date_trunc('week', r.counted_at AT TIME ZONE 'UTC') AS week, j.repo_key, r.step_name, m.key AS model,
    count(*) AS runs,
    sum((m.value ->> 'input_tokens')::numeric)::bigint AS input_tokens,
    sum((m.value ->> 'output_tokens')::numeric)::bigint AS output_tokens,
    sum((m.value ->> 'cache_read_tokens')::numeric)::bigint AS cache_read_tokens,
    sum((m.value ->> 'cache_creation_5m_tokens')::numeric)::bigint AS cache_creation_5m_tokens,
    sum((m.value ->> 'cache_creation_1h_tokens')::numeric)::bigint AS cache_creation_1h_tokens,
    sum((m.value ->> 'cost_usd')::numeric)::numeric(14, 6) AS cost_usd,
    coalesce(sum((m.value ->> 'estimated_usd')::numeric), 0)::numeric(14, 6) AS estimated_usd
FROM awo.agent_runs r
JOIN awo.jobs j ON j.id = r.job_id
CROSS JOIN LATERAL jsonb_each(r.usage_by_model) AS m
WHERE r.counted_at IS NOT NULL
GROUP BY 1, 2, 3, 4;

COMMENT ON COLUMN public.agent_work_orders.total_cost_usd IS 'By the agent''s own prices; of runs that ended without its report, an estimate';
COMMENT ON COLUMN public.agent_work_orders.usage_by_model IS 'The same by model: {"model": {"input_tokens": …, "cost_usd": …, "estimated_usd": …}}, the last being a part of cost_usd';
