-- What a lost sandbox of job $1 can be made from again: the file of the last bundle and the key of the last
-- archive since create-branch ended, whether each was saved after the last push was meant, and the intents of
-- the pushes, the latest first.
WITH
pushed AS (
    SELECT max(e.intended_at) AS last_at,
        coalesce(jsonb_agg(e.intent ORDER BY e.intended_at DESC), '[]') AS intents
    FROM awo.side_effects e WHERE e.job_id = $1 AND e.kind = 'push'
),
saved AS (
    SELECT DISTINCT ON (a.artifact_type) a.artifact_type, a.path, a.sha256, a.created_at
    FROM awo.jobs j
    JOIN public.agent_work_order_artifacts a ON a.agent_work_order_id = j.work_order_id
    JOIN awo.steps s ON s.job_id = j.id AND s.step_name = 'create-branch'
    WHERE j.id = $1 AND a.artifact_type IN ('bundle', 'archive') AND a.path IS NOT NULL
      -- What is older was set aside when the order began anew.
      AND a.created_at >= s.finished_at
    ORDER BY a.artifact_type, a.id DESC
)
SELECT b.path AS bundle, coalesce(b.created_at > p.last_at, true) AS bundle_is_newer,
    a.path AS archive, a.sha256 AS archive_sha256, coalesce(a.created_at > p.last_at, true) AS archive_is_newer,
    p.intents AS pushes
FROM pushed p
LEFT JOIN saved b ON b.artifact_type = 'bundle'
LEFT JOIN saved a ON a.artifact_type = 'archive'
