UPDATE awo_bench.floor_jobs SET state = 2 WHERE id = $1 AND state = 1
