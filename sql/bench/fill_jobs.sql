-- $1 waiting jobs without work of five priorities, spread over the first $2 repositories.
INSERT INTO awo.jobs (kind, repo_key, priority)
SELECT 'noop', 'bench-' || 1 + n % $2::integer, n / $2 % 5 FROM generate_series(1, $1::bigint) AS n
