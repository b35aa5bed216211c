SELECT o.agent_work_order_id AS id, o.user_request AS request, o.status, o.git_branch_name AS branch,
    o.github_pull_request_url AS pull_request_url, o.error_message,
    extract(epoch FROM o.finished_at - o.created_at)::double precision AS seconds
FROM public.agent_work_orders o
ORDER BY o.awo_job_id
