UPDATE awo.workers SET draining_at = now() WHERE worker_id = $1 AND draining_at IS NULL
