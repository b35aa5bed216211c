-- What the worker $1 held when it died, which step that cut off, and the next claim of each order,
-- in seconds since $2.
SELECT j.work_order_id, lost.step_name AS interrupted_step, next.first_step AS resumed_step,
    next.worker_id, extract(epoch FROM next.claimed_at - $2::timestamptz)::double precision AS seconds
FROM awo.attempts dead
JOIN awo.jobs j ON j.id = dead.job_id
LEFT JOIN public.agent_work_order_steps lost
    ON lost.agent_work_order_id = j.work_order_id AND lost.epoch = dead.epoch AND NOT lost.success
LEFT JOIN LATERAL (
    SELECT a.first_step, a.worker_id, a.claimed_at FROM awo.attempts a
    WHERE a.job_id = dead.job_id AND a.epoch > dead.epoch
    ORDER BY a.epoch
    LIMIT 1
) AS next ON true
WHERE dead.worker_id = $1 AND dead.outcome = 'crashed'
ORDER BY j.id
