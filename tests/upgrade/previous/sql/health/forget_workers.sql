-- Takes workers that have been silent for a day for stopped, and forgets those that stopped a week ago.
-- One that holds a lease is left for the rescue. Answers how many were marked and how many are gone.
WITH
idle AS MATERIALIZED (
    SELECT w.worker_id, w.heartbeat_at < now() - interval '7 days' AS forget
    FROM awo.workers w
    WHERE w.heartbeat_at < now() - interval '1 day'
      AND NOT EXISTS (SELECT 1 FROM awo.leases l WHERE l.worker_id = w.worker_id)
    ORDER BY w.worker_id
    FOR UPDATE SKIP LOCKED
),
marked AS (
    UPDATE awo.workers w SET stopped_at = now() FROM idle
    WHERE w.worker_id = idle.worker_id AND NOT idle.forget AND w.stopped_at IS NULL
    RETURNING 1
),
gone AS (
    DELETE FROM awo.workers w USING idle WHERE w.worker_id = idle.worker_id AND idle.forget
    RETURNING 1
)
SELECT (SELECT count(*) FROM marked) AS marked, (SELECT count(*) FROM gone) AS forgotten
