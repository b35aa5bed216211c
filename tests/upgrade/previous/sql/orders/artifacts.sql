SELECT artifact_type, step_name, path, sha256, size_bytes, created_at
FROM public.agent_work_order_artifacts
WHERE agent_work_order_id = $1
ORDER BY id
