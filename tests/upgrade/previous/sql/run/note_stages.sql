-- Notes of the attempt at job $1 under epoch $2: that its worker has heard of a request to cancel
-- ($3), that no process of its agents is left ($4), that its sandbox is free ($5). What was noted
-- before keeps its time. Changes nothing when the epoch is stale.
WITH owner AS (
    SELECT l.job_id, j.cancel_requested_at
    FROM awo.leases l JOIN awo.jobs j ON j.id = l.job_id
    WHERE l.job_id = $1 AND l.epoch = $2
    FOR KEY SHARE OF l
)
UPDATE awo.attempts a SET
    cancel_requested_at = CASE WHEN $3 THEN coalesce(a.cancel_requested_at, o.cancel_requested_at)
        ELSE a.cancel_requested_at END,
    cancel_acknowledged_at = CASE WHEN $3 THEN coalesce(a.cancel_acknowledged_at, now())
        ELSE a.cancel_acknowledged_at END,
    tree_empty_at = CASE WHEN $4 THEN coalesce(a.tree_empty_at, now()) ELSE a.tree_empty_at END,
    released_at = CASE WHEN $5 THEN coalesce(a.released_at, now()) ELSE a.released_at END
FROM owner o
WHERE a.job_id = o.job_id AND a.epoch = $2
