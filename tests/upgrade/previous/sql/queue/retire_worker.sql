UPDATE awo.workers SET stopped_at = now() WHERE worker_id = $1
