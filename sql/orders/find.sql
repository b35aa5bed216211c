SELECT o.agent_work_order_id, o.repository_url, o.user_request, o.status, o.current_phase,
    o.selected_commands, o.workflow_type, o.sandbox_type, o.base_branch, o.github_issue_number,
    o.sandbox_identifier, o.git_branch_name, o.agent_session_id, o.github_pull_request_url,
    o.git_commit_count, o.git_files_changed, o.error_message, o.error_class,
    o.total_input_tokens, o.total_output_tokens, o.total_cache_read_tokens, o.total_cache_creation_tokens,
    o.total_cache_creation_1h_tokens, o.total_cost_usd::double precision AS total_cost_usd, o.usage_by_model,
    o.created_at, o.updated_at, o.started_at, o.finished_at,
    j.id AS job_id, j.state AS job_state, j.queue, j.repo_key, j.priority, j.run_at, j.attempt,
    j.max_attempts, j.crash_count, j.interrupted_count, j.cancel_requested_at,
    CASE WHEN j.state = 'queued' AND j.run_at > now() AND j.last_error IS NOT NULL THEN j.run_at END AS next_attempt_at,
    j.waiting_since, j.gives_up_at, awo.waiting_for(o.agent_work_order_id) AS waiting_for,
    w.hostname AS worker_hostname, w.pid AS worker_pid,
    extract(epoch FROM now() - l.heartbeat_at)::double precision AS heartbeat_age_seconds
FROM public.agent_work_orders o
JOIN awo.jobs j ON j.id = o.awo_job_id
LEFT JOIN awo.leases l ON l.job_id = j.id
LEFT JOIN awo.workers w ON w.worker_id = l.worker_id
WHERE o.agent_work_order_id = $1
