-- $1 jobs of the repository $2 that go before all others.
INSERT INTO awo.jobs (kind, repo_key, priority)
SELECT 'noop', $2, 9 FROM generate_series(1, $1::bigint)
