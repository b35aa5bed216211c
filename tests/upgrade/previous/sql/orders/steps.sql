SELECT step_order, step_name, agent_name, attempt, success, output, error_message, error_class,
    duration_seconds, session_id, input_tokens, output_tokens,
    cost_usd::double precision AS cost_usd, epoch, worker_id, superseded_at,
    isolation, created_at
FROM public.agent_work_order_steps
WHERE agent_work_order_id = $1
ORDER BY id
