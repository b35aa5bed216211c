-- $1 repositories 'bench-1' … of which each may run $2 jobs.
INSERT INTO awo.repositories (repo_key, max_concurrent)
SELECT 'bench-' || n, $2 FROM generate_series(1, $1::integer) AS n
ON CONFLICT (repo_key) DO UPDATE SET max_concurrent = excluded.max_concurrent
