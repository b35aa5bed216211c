-- One beat of the worker $1 for all leases it holds: job ids $2, epochs $3, current steps $4 and
-- seconds since the last output $5; each is extended to $6 seconds from now. A lease that is not
-- answered is lost. An expired lease that nobody has rescued may be renewed: its processes were
-- frozen before it expired.
WITH worker AS (
    UPDATE awo.workers SET heartbeat_at = now() WHERE worker_id = $1
),
beat AS (
    UPDATE awo.leases l SET
        heartbeat_at = now(),
        expires_at = now() + $6 * interval '1 second',
        progress_at = now() - held.silent_seconds * interval '1 second',
        progress = jsonb_build_object('step', held.step)
    FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::double precision[])
        AS held (job_id, epoch, step, silent_seconds)
    WHERE l.job_id = held.job_id AND l.epoch = held.epoch AND l.worker_id = $1
    RETURNING l.job_id, l.epoch
)
SELECT b.job_id, b.epoch, j.cancel_requested_at IS NOT NULL AS cancel_requested, j.cancel_reason
FROM beat b JOIN awo.jobs j ON j.id = b.job_id
