-- What each run of an agent consumed, by model: counted once, also when its worker died, and split from totals
-- that an agent reports for a whole conversation.

-- One row per run of an agent: made before it starts, counted after its end by its worker, or by whoever goes on
-- with the order and finds the run's output.
CREATE TABLE awo.agent_runs (
    id                        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id                    uuid NOT NULL UNIQUE,             -- AWO_RUN_ID of its processes
    job_id                    bigint NOT NULL REFERENCES awo.jobs ON DELETE CASCADE,
    epoch                     bigint NOT NULL,                  -- the lease under which it ran
    step_name                 text NOT NULL,
    attempt                   integer NOT NULL,                 -- of the step
    session_id                uuid NOT NULL,                    -- its conversation
    spool                     text NOT NULL,                    -- its output: a file among the outputs of its order
    started_at                timestamptz NOT NULL DEFAULT now(),
    counted_at                timestamptz,                      -- NULL: it runs, or nobody has read its output yet
    input_tokens              bigint NOT NULL DEFAULT 0,
    output_tokens             bigint NOT NULL DEFAULT 0,
    cache_read_tokens         bigint NOT NULL DEFAULT 0,
    cache_creation_tokens     bigint NOT NULL DEFAULT 0,
    cache_creation_1h_tokens  bigint NOT NULL DEFAULT 0,
    cost_usd                  numeric(14, 6) NOT NULL DEFAULT 0,
    usage_by_model            jsonb NOT NULL DEFAULT '{}',
    reported                  jsonb,                            -- the last total it reported, by model
    unreported                jsonb NOT NULL DEFAULT '{}'       -- what it consumed after that
);
CREATE INDEX agent_runs_by_job ON awo.agent_runs (job_id, id);

ALTER TABLE public.agent_work_orders
    ADD COLUMN total_cache_read_tokens         bigint NOT NULL DEFAULT 0,
    ADD COLUMN total_cache_creation_tokens     bigint NOT NULL DEFAULT 0,
    ADD COLUMN total_cache_creation_1h_tokens  bigint NOT NULL DEFAULT 0,
    ADD COLUMN usage_by_model                  jsonb NOT NULL DEFAULT '{}';
ALTER TABLE public.agent_work_order_steps
    ADD COLUMN cache_creation_1h_tokens  bigint NOT NULL DEFAULT 0,
    ADD COLUMN usage_by_model            jsonb NOT NULL DEFAULT '{}';

-- The sum of two usages by model: {"claude-…": {"input_tokens": …, "output_tokens": …, "cache_read_tokens": …,
-- "cache_creation_5m_tokens": …, "cache_creation_1h_tokens": …, "cost_usd": …}}.
CREATE FUNCTION awo.add_usage(a jsonb, b jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(model, kinds), '{}')
    FROM (
        SELECT model, jsonb_object_agg(kind, total) AS kinds
        FROM (
            SELECT m.key AS model, k.key AS kind, sum(k.value::numeric) AS total
            FROM (VALUES (a), (b)) AS v (usage)
            CROSS JOIN LATERAL jsonb_each(v.usage) AS m
            CROSS JOIN LATERAL jsonb_each_text(m.value) AS k
            GROUP BY m.key, k.key
        ) AS sums
        GROUP BY model
    ) AS models
$$;
CREATE AGGREGATE awo.sum_usage(jsonb) (SFUNC = awo.add_usage, STYPE = jsonb, INITCOND = '{}');

-- What the runs of a conversation before the run $3 left behind, as [{"reported": …, "unreported": …}, …] in their
-- order, from the last one on that reported a total.
CREATE FUNCTION awo.earlier_usage(job_id bigint, session_id uuid, before_id bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH earlier AS (
        SELECT r.id, r.reported, r.unreported FROM awo.agent_runs r
        WHERE r.job_id = earlier_usage.job_id AND r.session_id = earlier_usage.session_id
          AND r.id < before_id AND r.counted_at IS NOT NULL
    )
    SELECT coalesce(jsonb_agg(jsonb_build_object('reported', e.reported, 'unreported', e.unreported) ORDER BY e.id), '[]')
    FROM earlier e
    WHERE e.id >= coalesce((SELECT max(b.id) FROM earlier b WHERE b.reported IS NOT NULL), 0)
$$;

REVOKE ALL ON FUNCTION awo.add_usage(jsonb, jsonb), awo.sum_usage(jsonb), awo.earlier_usage(bigint, uuid, bigint)
    FROM PUBLIC;

-- What agents cost, by week (UTC), repository, step and model, as far back as there is history. A run that ended
-- without a report of its agent has tokens and no price of its own.
CREATE VIEW awo.costs AS
SELECT date_trunc('week', r.counted_at AT TIME ZONE 'UTC') AS week, j.repo_key, r.step_name, m.key AS model,
    count(*) AS runs,
    sum((m.value ->> 'input_tokens')::numeric)::bigint AS input_tokens,
    sum((m.value ->> 'output_tokens')::numeric)::bigint AS output_tokens,
    sum((m.value ->> 'cache_read_tokens')::numeric)::bigint AS cache_read_tokens,
    sum((m.value ->> 'cache_creation_5m_tokens')::numeric)::bigint AS cache_creation_5m_tokens,
    sum((m.value ->> 'cache_creation_1h_tokens')::numeric)::bigint AS cache_creation_1h_tokens,
    sum((m.value ->> 'cost_usd')::numeric)::numeric(14, 6) AS cost_usd
FROM awo.agent_runs r
JOIN awo.jobs j ON j.id = r.job_id
CROSS JOIN LATERAL jsonb_each(r.usage_by_model) AS m
WHERE r.counted_at IS NOT NULL
GROUP BY 1, 2, 3, 4;

COMMENT ON COLUMN public.agent_work_orders.total_input_tokens IS 'Read by models from no cache, in all runs of agents for the order';
COMMENT ON COLUMN public.agent_work_orders.total_output_tokens IS 'Written by models';
COMMENT ON COLUMN public.agent_work_orders.total_cache_read_tokens IS 'Read from the provider''s cache';
COMMENT ON COLUMN public.agent_work_orders.total_cache_creation_tokens IS 'Written to the provider''s cache, for however long';
COMMENT ON COLUMN public.agent_work_orders.total_cache_creation_1h_tokens IS 'Of total_cache_creation_tokens, what was written for an hour';
COMMENT ON COLUMN public.agent_work_orders.total_cost_usd IS 'By the agent''s own prices, as far as its runs came to their report';
COMMENT ON COLUMN public.agent_work_orders.usage_by_model IS 'The same by model: {"model": {"input_tokens": …, "cost_usd": …}}';

DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'service_role') THEN
        GRANT SELECT ON awo.agent_runs, awo.costs TO service_role;
    END IF;
END $$;
