-- The worker that has been inside an `execute` for the shortest time, but long enough for the agent
-- to be at work.
SELECT l.worker_id
FROM awo.leases l
JOIN awo.steps s ON s.job_id = l.job_id AND s.epoch = l.epoch
WHERE s.step_name = 'execute' AND s.finished_at IS NULL
  AND s.started_at < now() - interval '600 milliseconds'
ORDER BY s.started_at DESC
LIMIT 1
