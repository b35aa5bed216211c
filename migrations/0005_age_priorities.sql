-- Which job is next, when jobs gain priority while they wait: the first and the oldest of a queue, and
-- the first and the oldest of each repository for when those at the front of the queue are blocked.
-- Without the oldest a stream of urgent jobs would hide an old one behind any number of rows.
CREATE INDEX jobs_first ON awo.jobs (queue, priority DESC, run_at, id) INCLUDE (repo_key)
    WHERE state = 'queued';
CREATE INDEX jobs_oldest ON awo.jobs (queue, repo_key, run_at, id) WHERE state = 'queued';
DROP INDEX awo.jobs_due;
CREATE INDEX jobs_due ON awo.jobs (queue, run_at, id) INCLUDE (repo_key, priority)
    WHERE state = 'queued';
