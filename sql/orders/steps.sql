SELECT step_order, step_name, agent_name, attempt, success, output, error_message, error_class,
    duration_seconds, session_id, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens,
    cache_creation_1h_tokens, cost_usd::double precision AS cost_usd, usage_by_model, epoch, worker_id, superseded_at,
    isolation, created_at
FROM public.agent_work_order_steps
WHERE agent_work_order_id = $1
ORDER BY id
