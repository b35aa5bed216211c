-- Drops the checkpoints $3 of job $1 under epoch $2: their results are gone with the sandbox.
DELETE FROM awo.steps s USING (
    SELECT job_id FROM awo.leases WHERE job_id = $1 AND epoch = $2 FOR KEY SHARE) AS owner
WHERE s.job_id = owner.job_id AND s.step_name = ANY ($3::text[])
