SELECT agent_work_order_id, repository_url, user_request, status, current_phase, git_branch_name,
    github_pull_request_url, error_class, error_message, created_at, started_at, finished_at
FROM public.agent_work_orders
WHERE $1::text IS NULL OR status = $1
ORDER BY created_at DESC, agent_work_order_id
LIMIT $2
