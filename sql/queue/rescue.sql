-- Takes back jobs whose lease ran out more than $1 seconds ago; $2 is the length of a lease in
-- seconds. Any replica may run it at any time. Right after the server started every lease looks
-- dead though its owner may live: then it waits for one whole lease.
WITH
-- Locked rows are skipped, leases too: whoever holds one is about to renew or to end it. So this
-- never waits, and cannot deadlock with a heartbeat, which locks many leases in an order of its own.
-- A lease that was renewed meanwhile is looked at again under its lock and left alone.
dead AS MATERIALIZED (
    SELECT j.id, l.epoch
    FROM awo.leases l JOIN awo.jobs j ON j.id = l.job_id AND j.lease_epoch = l.epoch
    WHERE l.expires_at < now() - $1::double precision * interval '1 second'
      AND j.state = 'running'
      AND pg_postmaster_start_time() < now() - ($1 + $2::double precision) * interval '1 second'
    ORDER BY l.expires_at
    LIMIT 50
    FOR UPDATE OF j, l SKIP LOCKED
),
gone AS (
    DELETE FROM awo.leases l USING dead d
    WHERE l.job_id = d.id AND l.epoch = d.epoch
    RETURNING l.job_id, l.epoch, l.worker_id, l.heartbeat_at
),
rescued AS (
    UPDATE awo.jobs j SET
        state = (CASE
            WHEN j.cancel_requested_at IS NOT NULL THEN 'cancelled'
            WHEN j.crash_count + 1 >= j.max_crashes THEN 'failed'
            ELSE 'queued' END)::awo.job_state,
        -- The crash budget is spent, not the attempt.
        attempt = greatest(j.attempt - 1, 0),
        crash_count = j.crash_count + 1,
        run_at = now(),
        last_error = CASE
            WHEN j.cancel_requested_at IS NOT NULL THEN j.cancel_reason
            WHEN j.crash_count + 1 >= j.max_crashes THEN format(
                'The worker died %s times while it ran this order; see its log for memory or disk trouble, then requeue.',
                j.crash_count + 1)
            ELSE j.last_error END,
        error_class = CASE
            WHEN j.cancel_requested_at IS NOT NULL THEN 'cancelled'
            WHEN j.crash_count + 1 >= j.max_crashes THEN 'lost_worker'
            ELSE j.error_class END
    FROM gone g
    WHERE j.id = g.job_id AND j.lease_epoch = g.epoch AND j.state = 'running'
    RETURNING j.id, j.work_order_id, j.state, g.epoch, g.worker_id,
        extract(epoch FROM now() - g.heartbeat_at)::double precision AS silent_seconds
),
closed AS (
    UPDATE awo.attempts a SET ended_at = now(), outcome = 'crashed', error_class = 'lost_worker',
        error_message = format('no heartbeat for %s s', round(r.silent_seconds::numeric, 1))
    FROM rescued r WHERE a.job_id = r.id AND a.epoch = r.epoch
)
SELECT r.id AS job_id, r.work_order_id, r.state, r.worker_id, r.silent_seconds FROM rescued r
