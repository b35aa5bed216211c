-- How many workers there are in each state, and the seconds since the last heartbeat of any of them.
SELECT count(*) FILTER (WHERE state = 'alive') AS alive,
    count(*) FILTER (WHERE state = 'draining') AS draining,
    count(*) FILTER (WHERE state = 'dead') AS dead,
    extract(epoch FROM min(heartbeat_age))::double precision AS last_heartbeat_seconds
FROM awo.worker_health
WHERE state <> 'stopped'
