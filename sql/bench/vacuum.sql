VACUUM (ANALYZE) awo.jobs, awo.repositories, awo_bench.floor_jobs
