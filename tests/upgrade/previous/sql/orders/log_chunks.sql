SELECT seq, step_name, run_id, stream, data, created_at
FROM awo.log_chunks
WHERE agent_work_order_id = $1 AND seq > $2 AND ($3::text IS NULL OR step_name = $3)
ORDER BY seq
LIMIT $4
