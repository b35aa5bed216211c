-- The worker that ran the job $1 before the epoch $2 and was lost while it did.
SELECT w.hostname, w.pid
FROM awo.attempts a JOIN awo.workers w ON w.worker_id = a.worker_id
WHERE a.job_id = $1 AND a.epoch < $2 AND a.outcome = 'crashed'
ORDER BY a.epoch DESC
LIMIT 1
