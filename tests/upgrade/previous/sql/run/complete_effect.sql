-- Stores the result $5 of the effect of kind $3 with key $4, under job $1 and epoch $2.
WITH owner AS (SELECT job_id FROM awo.leases WHERE job_id = $1 AND epoch = $2 FOR KEY SHARE)
UPDATE awo.side_effects e SET result = $5::jsonb, result_epoch = $2, completed_at = now()
FROM owner WHERE e.job_id = $1 AND e.kind = $3 AND e.key = $4
