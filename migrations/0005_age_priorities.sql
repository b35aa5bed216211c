-- The oldest waiting jobs of a repository, for claims that let a job gain priority while it waits.
-- Without it a stream of urgent jobs would hide an old one behind any number of rows.
CREATE INDEX jobs_oldest ON awo.jobs (queue, repo_key, run_at, id) WHERE state = 'queued';
