-- $1 waiting jobs of five priorities.
INSERT INTO awo_bench.floor_jobs (priority)
SELECT n % 5 FROM generate_series(1, $1::bigint) AS n
