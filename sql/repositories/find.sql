-- What is set for the repository with this address or repo_key.
SELECT repo_key, max_concurrent AS "limit", paused_at, default_branch, default_sandbox_type, trusted,
    agent_environment, submodules, lfs, sparse_paths, clone_depth
FROM awo.repositories
WHERE repo_key IN ($1, awo.repo_key($1))
ORDER BY repo_key = $1 DESC LIMIT 1
