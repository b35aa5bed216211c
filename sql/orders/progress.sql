SELECT o.status, o.current_phase, cardinality(o.selected_commands) AS steps_total,
    (SELECT count(DISTINCT s.step_name) FROM public.agent_work_order_steps s
     WHERE s.agent_work_order_id = o.agent_work_order_id AND s.success
       AND s.superseded_at IS NULL)::integer AS steps_done,
    o.error_message, o.github_pull_request_url,
    CASE WHEN o.status = 'pending' THEN awo.waiting_for(o.agent_work_order_id) END AS waiting_for
FROM public.agent_work_orders o
WHERE o.agent_work_order_id = $1
