-- The checkpoints of a job: the steps that never run again.
SELECT step_name, output FROM awo.steps WHERE job_id = $1 AND finished_at IS NOT NULL
