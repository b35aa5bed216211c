-- Stores what is now known of order $3 under job $1 and epoch $2; NULL leaves a column as it is.
WITH owner AS (SELECT job_id FROM awo.leases WHERE job_id = $1 AND epoch = $2 FOR KEY SHARE)
UPDATE public.agent_work_orders o SET
    git_branch_name = coalesce($4, o.git_branch_name),
    sandbox_identifier = coalesce($5, o.sandbox_identifier),
    github_pull_request_url = coalesce($6, o.github_pull_request_url),
    git_commit_count = coalesce($7, o.git_commit_count),
    git_files_changed = coalesce($8, o.git_files_changed)
FROM owner
WHERE o.agent_work_order_id = $3
