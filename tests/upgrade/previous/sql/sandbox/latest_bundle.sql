-- The last saved work of order $1.
SELECT path, sha256, size_bytes
FROM public.agent_work_order_artifacts
WHERE agent_work_order_id = $1 AND artifact_type = 'bundle' AND path IS NOT NULL
ORDER BY id DESC
LIMIT 1
