-- The first claim of every order after the worker $1 died with it, counted from $2.
SELECT j.work_order_id, next.first_step, next.worker_id,
    extract(epoch FROM next.claimed_at - $2::timestamptz)::double precision AS seconds
FROM awo.attempts dead
JOIN awo.jobs j ON j.id = dead.job_id
CROSS JOIN LATERAL (
    SELECT a.first_step, a.worker_id, a.claimed_at FROM awo.attempts a
    WHERE a.job_id = dead.job_id AND a.epoch > dead.epoch
    ORDER BY a.epoch
    LIMIT 1
) AS next
WHERE dead.worker_id = $1 AND dead.outcome = 'crashed' AND j.work_order_id IS NOT NULL
ORDER BY j.id
