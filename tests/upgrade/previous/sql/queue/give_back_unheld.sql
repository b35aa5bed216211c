-- Gives back what the worker $1 was leased from the queues $3 and does not know of, $2 being the jobs
-- it knows of: the answer to a claim was lost. Costs no attempt and no crash. Lock order: job, then lease.
WITH
unheld AS (
    SELECT j.id, l.epoch
    FROM awo.leases l JOIN awo.jobs j ON j.id = l.job_id AND j.lease_epoch = l.epoch
    WHERE l.worker_id = $1 AND l.job_id <> ALL ($2::bigint[]) AND j.state = 'running'
      AND j.queue = ANY ($3)
    ORDER BY j.id
    FOR UPDATE OF j SKIP LOCKED
),
gone AS (
    DELETE FROM awo.leases l USING unheld u
    WHERE l.job_id = u.id AND l.epoch = u.epoch
    RETURNING l.job_id, l.epoch
),
back AS (
    UPDATE awo.jobs j SET state = 'queued', attempt = greatest(j.attempt - 1, 0), run_at = now(),
        interrupted_count = j.interrupted_count + 1
    FROM gone g
    WHERE j.id = g.job_id AND j.lease_epoch = g.epoch AND j.state = 'running'
    RETURNING j.id, g.epoch
),
closed AS (
    UPDATE awo.attempts a SET ended_at = now(), outcome = 'interrupted',
        error_message = 'the answer to the claim was lost'
    FROM back b WHERE a.job_id = b.id AND a.epoch = b.epoch
)
SELECT count(*) FROM back
