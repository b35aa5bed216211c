TRUNCATE awo.jobs, awo_bench.floor_jobs CASCADE
