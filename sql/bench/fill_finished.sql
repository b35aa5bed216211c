-- $1 jobs that ended, one a second up to now, spread over the first $2 repositories.
INSERT INTO awo.jobs (kind, repo_key, state, attempt, lease_epoch, run_at, created_at, finished_at)
SELECT 'noop', 'bench-' || 1 + n % $2::integer, 'succeeded', 1, 1, t, t, t
FROM generate_series(1, $1::bigint) AS n, LATERAL (SELECT now() - n * interval '1 second') AS ended (t)
