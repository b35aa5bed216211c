INSERT INTO awo.jobs (kind, repo_key, priority) VALUES ('noop', $1, $2) RETURNING id
