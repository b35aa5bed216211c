-- Marks step $4 (number $5) of order $3 as started under job $1 and epoch $2, by agent $6 with
-- session $7; execute goes on in the conversation that it had last, which may be another one than was
-- planned then. Answers no row when the epoch is stale or the step is finished; else also whether the run
-- before was interrupted, since the step last succeeded or was asked for anew.
WITH
owner AS (SELECT job_id, worker_id FROM awo.leases WHERE job_id = $1 AND epoch = $2 FOR KEY SHARE),
-- A run of the step that its owner could not end becomes history now.
unfinished AS (
    INSERT INTO public.agent_work_order_steps (agent_work_order_id, step_order, step_name, agent_name,
        attempt, success, error_class, error_message, duration_seconds, session_id, epoch, worker_id,
        input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, cache_creation_1h_tokens,
        cost_usd, usage_by_model)
    SELECT $3, $5, s.step_name, $6, s.runs, false,
        CASE WHEN a.outcome = 'crashed' THEN 'lost_worker' WHEN a.outcome = 'cancelled' THEN 'cancelled' END,
        CASE WHEN a.outcome = 'crashed' THEN 'the worker died while it ran this step'
             WHEN a.outcome = 'cancelled' THEN 'the order was cancelled during this step'
             ELSE 'the worker was restarted during this step' END,
        greatest(extract(epoch FROM coalesce(a.ended_at, now()) - s.started_at), 0),
        s.session_id::text, s.epoch, a.worker_id,
        u.input, u.output, u.cache_read, u.cache_creation, u.cache_creation_1h, u.cost_usd, u.by_model
    FROM owner CROSS JOIN awo.steps s
    LEFT JOIN awo.attempts a ON a.job_id = s.job_id AND a.epoch = s.epoch
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(r.input_tokens), 0)::bigint AS input,
            coalesce(sum(r.output_tokens), 0)::bigint AS output,
            coalesce(sum(r.cache_read_tokens), 0)::bigint AS cache_read,
            coalesce(sum(r.cache_creation_tokens), 0)::bigint AS cache_creation,
            coalesce(sum(r.cache_creation_1h_tokens), 0)::bigint AS cache_creation_1h,
            coalesce(sum(r.cost_usd), 0) AS cost_usd,
            coalesce(awo.sum_usage(r.usage_by_model), '{}') AS by_model
        FROM awo.agent_runs r
        WHERE r.job_id = s.job_id AND r.step_name = s.step_name AND r.attempt = s.runs
          AND r.counted_at IS NOT NULL
    ) AS u
    WHERE s.job_id = $1 AND s.step_name = $4 AND s.finished_at IS NULL AND s.epoch <> $2
    ON CONFLICT (agent_work_order_id, step_name, attempt) DO NOTHING
    RETURNING attempt
),
-- The classes of what ends an agent in the middle of its work.
interrupted AS (
    SELECT h.success IS FALSE AND coalesce(h.error_class, 'drained') IN ('drained', 'lost_worker', 'cancelled',
        'rate_limited', 'overloaded', 'stalled', 'timeout', 'oom', 'disk', 'budget', 'max_turns') AS yes
    FROM public.agent_work_order_steps h
    WHERE h.agent_work_order_id = $3 AND h.step_name = $4 AND h.superseded_at IS NULL
    ORDER BY h.attempt DESC LIMIT 1
),
started AS (
    INSERT INTO awo.steps (job_id, step_name, epoch, runs, session_id)
    SELECT $1, $4, $2, 1 + coalesce(last.attempt, 0), coalesce(last.session_id, $7)
    FROM owner
    LEFT JOIN LATERAL (
        -- The column is text, and others may write it too.
        SELECT h.attempt, CASE WHEN $4 = 'execute' AND h.session_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
            THEN h.session_id::uuid END AS session_id
        FROM public.agent_work_order_steps h
        WHERE h.agent_work_order_id = $3 AND h.step_name = $4
        ORDER BY h.attempt DESC LIMIT 1
    ) last ON true
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
SELECT s.runs, s.session_id,
    EXISTS (SELECT 1 FROM unfinished) OR coalesce((SELECT i.yes FROM interrupted i), false) AS interrupted
FROM started s
