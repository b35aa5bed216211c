-- Notes $4 (SHA-256 $5, $6 bytes) as saved work of the order of job $1 under epoch $2, once: of type $3, a bundle
-- below AWO_WORK_ORDER_DIR or an archive below AWO_ARCHIVE_URL. Answers whether the epoch was current.
WITH
owner AS (SELECT job_id FROM awo.leases WHERE job_id = $1 AND epoch = $2 FOR KEY SHARE),
noted AS (
    INSERT INTO public.agent_work_order_artifacts (agent_work_order_id, artifact_type, path, sha256, size_bytes)
    SELECT j.work_order_id, $3, $4, $5, $6
    FROM owner JOIN awo.jobs j ON j.id = owner.job_id
    WHERE NOT EXISTS (
        SELECT FROM public.agent_work_order_artifacts a
        WHERE a.agent_work_order_id = j.work_order_id AND a.artifact_type = $3 AND a.path = $4
    )
)
SELECT EXISTS (SELECT FROM owner)
