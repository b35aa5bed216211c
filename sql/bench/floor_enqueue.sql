-- The barest enqueue that somebody hears of: a row and a notification, committed together.
WITH added AS (INSERT INTO awo_bench.floor_jobs DEFAULT VALUES RETURNING id)
SELECT pg_notify('awo_bench', id::text) FROM added
