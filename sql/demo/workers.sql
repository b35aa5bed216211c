SELECT worker_id, pid FROM awo.workers WHERE stopped_at IS NULL
