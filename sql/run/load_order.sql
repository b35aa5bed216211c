-- What a run needs to know of its order.
SELECT o.agent_work_order_id, o.repository_url, o.user_request, o.selected_commands,
    o.github_issue_number, o.git_branch_name, o.github_pull_request_url, j.reopen, o.created_at, o.sandbox_type,
    o.base_branch, r.default_branch, r.trusted,
    r.agent_environment, r.submodules, r.lfs, r.sparse_paths, r.clone_depth, j.restarts
FROM public.agent_work_orders o
JOIN awo.jobs j ON j.id = o.awo_job_id
JOIN awo.repositories r ON r.repo_key = j.repo_key
WHERE o.awo_job_id = $1
