-- The next run of an agent of job $1 after the run numbered $3 that nobody has counted: its worker, under an epoch
-- before $2 where there is one, died or was cut off. With what earlier runs of its conversation left behind.
SELECT r.id, r.run_id, r.step_name, r.session_id, r.spool,
    awo.earlier_usage(r.job_id, r.session_id, r.id) AS earlier
FROM awo.agent_runs r
WHERE r.job_id = $1 AND ($2::bigint IS NULL OR r.epoch < $2) AND r.id > $3 AND r.counted_at IS NULL
ORDER BY r.id
LIMIT 1
