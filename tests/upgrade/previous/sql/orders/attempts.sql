SELECT a.epoch, a.attempt, a.worker_id, w.hostname AS worker_hostname, w.pid AS worker_pid,
    a.claimed_at, a.first_step, a.ended_at, a.outcome, a.error_class, a.error_message,
    a.cancel_requested_at, a.cancel_acknowledged_at, a.tree_empty_at, a.released_at,
    a.silent_seconds, a.worker_was
FROM awo.attempts a
LEFT JOIN awo.workers w ON w.worker_id = a.worker_id
WHERE a.job_id = $1
ORDER BY a.epoch
