WITH owner AS (SELECT job_id FROM awo.leases WHERE job_id = $1 AND epoch = $2 FOR KEY SHARE)
INSERT INTO public.agent_work_order_artifacts
    (agent_work_order_id, artifact_type, step_name, content, path, sha256, size_bytes)
SELECT $3, $4, $5, $6, $7, $8, $9 FROM owner
