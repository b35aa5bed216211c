-- Counts that the order of job $1 begins anew under epoch $2, and answers how often it has. The job is locked
-- before its lease, as everywhere.
WITH
job AS (SELECT id FROM awo.jobs WHERE id = $1 FOR UPDATE),
owner AS (
    SELECT l.job_id FROM job JOIN awo.leases l ON l.job_id = job.id
    WHERE l.epoch = $2
    FOR KEY SHARE OF l
)
UPDATE awo.jobs j SET restarts = j.restarts + 1
FROM owner
WHERE j.id = owner.job_id
RETURNING j.restarts
