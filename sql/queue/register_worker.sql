INSERT INTO awo.workers (worker_id, hostname, pid, version, queues, max_concurrent, kinds)
VALUES ($1, $2, $3, $4, $5, $6, $7)
