UPDATE awo.workers SET claims_nothing_because = $2 WHERE worker_id = $1
