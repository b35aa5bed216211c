-- What was said to the order of job $1 after its request, oldest first.
SELECT prompt, created_at, answered_at FROM awo.prompts WHERE job_id = $1 ORDER BY id
