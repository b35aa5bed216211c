SELECT queue, sum(ready)::bigint AS ready, sum(scheduled)::bigint AS scheduled,
    coalesce(extract(epoch FROM max(oldest_wait)), 0)::double precision AS oldest_wait_seconds
FROM awo.queue_depth
GROUP BY queue
ORDER BY queue
