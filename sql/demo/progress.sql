-- Where every order is, in the order in which they were inserted.
SELECT o.agent_work_order_id AS id, o.status, o.current_phase AS phase,
    cardinality(o.selected_commands) AS steps, count(s.step_name) AS finished,
    l.worker_id, j.crash_count, o.error_message
FROM public.agent_work_orders o
JOIN awo.jobs j ON j.id = o.awo_job_id
LEFT JOIN awo.leases l ON l.job_id = j.id
LEFT JOIN awo.steps s ON s.job_id = j.id AND s.finished_at IS NOT NULL
GROUP BY o.agent_work_order_id, j.id, l.job_id
ORDER BY j.id
