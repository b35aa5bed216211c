VACUUM (ANALYZE) awo.jobs, awo.leases, awo.attempts, awo.repositories, awo_bench.floor_jobs
