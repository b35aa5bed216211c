SELECT s.agent_work_order_id AS order_id, s.step_name AS step, s.attempt, s.success,
    s.error_class, s.duration_seconds AS seconds, s.worker_id
FROM public.agent_work_order_steps s
ORDER BY s.agent_work_order_id, s.step_order, s.attempt
