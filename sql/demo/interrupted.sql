-- What the worker $1 holds, and the step it is in.
SELECT j.work_order_id, s.step_name
FROM awo.leases l
JOIN awo.jobs j ON j.id = l.job_id
LEFT JOIN awo.steps s ON s.job_id = l.job_id AND s.epoch = l.epoch AND s.finished_at IS NULL
WHERE l.worker_id = $1 AND j.work_order_id IS NOT NULL
ORDER BY j.id
