-- One beat of the worker $1 for all leases it holds: job ids $2, epochs $3, current steps $4 and
-- seconds since the last output $5; each is extended to $6 seconds from now. A lease that is not
-- answered is lost. An expired lease that nobody has rescued may be renewed: its processes were
-- frozen before it expired. Every row, of which there is at least one, also says whether some lease
-- has run out, so that idle replicas need no other look at the leases.
WITH worker AS (
    UPDATE awo.workers SET heartbeat_at = now() WHERE worker_id = $1
),
-- In the order of their ids, as a settlement of several jobs locks them.
locked AS MATERIALIZED (
    SELECT l.job_id, l.epoch, held.step, held.silent_seconds
    FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::double precision[])
        AS held (job_id, epoch, step, silent_seconds)
    JOIN awo.leases l ON l.job_id = held.job_id AND l.epoch = held.epoch AND l.worker_id = $1
    ORDER BY l.job_id
    FOR NO KEY UPDATE OF l
),
beat AS (
    UPDATE awo.leases l SET
        heartbeat_at = now(),
        expires_at = now() + $6 * interval '1 second',
        progress_at = now() - held.silent_seconds * interval '1 second',
        progress = jsonb_build_object('step', held.step)
    FROM locked held
    WHERE l.job_id = held.job_id AND l.epoch = held.epoch
    RETURNING l.job_id, l.epoch
),
expired AS (
    SELECT EXISTS (SELECT 1 FROM awo.leases l WHERE l.expires_at < now()) AS any
)
SELECT b.job_id, b.epoch, coalesce(j.cancel_requested_at IS NOT NULL, false) AS cancel_requested,
    j.cancel_reason, expired.any AS rescue_due
FROM expired
LEFT JOIN beat b ON true
LEFT JOIN awo.jobs j ON j.id = b.job_id
