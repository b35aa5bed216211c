-- Keeps an artifact of order $3 under job $1 and epoch $2, once: the reply to the first call may have been
-- lost. Answers whether the epoch was current.
WITH
owner AS (SELECT job_id FROM awo.leases WHERE job_id = $1 AND epoch = $2 FOR KEY SHARE),
kept AS (
    INSERT INTO public.agent_work_order_artifacts
        (agent_work_order_id, artifact_type, step_name, content, path, sha256, size_bytes)
    SELECT $3, $4, $5, $6, $7, $8, $9 FROM owner
    WHERE NOT EXISTS (
        SELECT FROM public.agent_work_order_artifacts a
        WHERE a.agent_work_order_id = $3 AND a.artifact_type = $4 AND a.step_name IS NOT DISTINCT FROM $5
          AND a.path IS NOT DISTINCT FROM $7 AND a.sha256 = $8
    )
)
SELECT EXISTS (SELECT FROM owner)
