-- What a lost sandbox of job $1 can be made from again: the file of the last bundle, whether it was saved
-- after the last push was meant, and the intents of the pushes, the latest first.
SELECT b.path AS bundle, coalesce(b.created_at > max(e.intended_at), true) AS bundle_is_newer,
    coalesce(jsonb_agg(e.intent ORDER BY e.intended_at DESC) FILTER (WHERE e.intent IS NOT NULL), '[]') AS pushes
FROM awo.jobs j
LEFT JOIN awo.side_effects e ON e.job_id = j.id AND e.kind = 'push'
LEFT JOIN LATERAL (
    SELECT a.path, a.created_at
    FROM public.agent_work_order_artifacts a
    WHERE a.agent_work_order_id = j.work_order_id AND a.artifact_type = 'bundle' AND a.path IS NOT NULL
    ORDER BY a.id DESC LIMIT 1
) b ON true
WHERE j.id = $1
GROUP BY b.path, b.created_at
