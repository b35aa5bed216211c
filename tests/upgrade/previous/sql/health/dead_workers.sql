-- Workers that stopped beating without a farewell.
SELECT worker_id, hostname, pid, running, extract(epoch FROM heartbeat_age)::double precision AS silent_seconds
FROM awo.worker_health
WHERE state = 'dead'
ORDER BY heartbeat_at DESC
LIMIT 100
