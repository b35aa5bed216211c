-- What the latest runs used of each of the models $1, with the dollars that their agents reported for that: the last
-- 25 of a model, of the last 1,000 runs of all.
SELECT m.model, m.usage
FROM (
    SELECT u.key AS model, u.value AS usage, row_number() OVER (PARTITION BY u.key ORDER BY r.id DESC) AS place
    FROM (
        SELECT l.id, l.usage_by_model, l.reported FROM awo.agent_runs l
        WHERE l.counted_at IS NOT NULL ORDER BY l.id DESC LIMIT 1000
    ) AS r
    CROSS JOIN LATERAL jsonb_each(r.usage_by_model) AS u
    WHERE r.reported IS NOT NULL AND u.key = ANY ($1)
      AND (u.value ->> 'cost_usd')::numeric > 0
      AND coalesce((u.value ->> 'estimated_usd')::numeric, 0) = 0
) AS m
WHERE m.place <= 25
