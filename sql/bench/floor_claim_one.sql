UPDATE awo_bench.floor_jobs SET state = 1
WHERE id = (
    SELECT id FROM awo_bench.floor_jobs WHERE state = 0 AND run_at <= now()
    ORDER BY priority DESC, run_at, id LIMIT 1
    FOR UPDATE SKIP LOCKED)
RETURNING id
