-- Takes back jobs whose lease ran out more than $1 seconds ago; $2 is the length of a lease in
-- seconds. Any replica may run it at any time. Only the leases $3 under epochs $4 are looked at, and
-- only if they were not renewed since $5: whoever asks has seen them run out before and has waited
-- for longer than a living owner takes to renew. So a clock of the server that jumps ahead, or a
-- pause of the whole host, costs nobody a lease. Right after the server started every lease looks
-- dead though its owner may live: then it waits for one whole lease.
WITH
seen AS (
    SELECT * FROM unnest($3::bigint[], $4::bigint[], $5::timestamptz[]) AS s (job_id, epoch, heartbeat_at)
),
-- Locked rows are skipped, leases too: whoever holds one is about to renew or to end it. So this
-- never waits, and cannot deadlock with a heartbeat, which locks many leases in an order of its own.
-- A lease that was renewed meanwhile is looked at again under its lock and left alone.
dead AS MATERIALIZED (
    SELECT j.id, l.epoch
    FROM seen s
    JOIN awo.leases l ON l.job_id = s.job_id AND l.epoch = s.epoch AND l.heartbeat_at = s.heartbeat_at
    JOIN awo.jobs j ON j.id = l.job_id AND j.lease_epoch = l.epoch
    WHERE l.expires_at < now() - $1::double precision * interval '1 second'
      AND j.state = 'running'
      AND pg_postmaster_start_time() < now() - ($1 + $2::double precision) * interval '1 second'
    ORDER BY l.expires_at
    FOR UPDATE OF j, l SKIP LOCKED
),
gone AS (
    DELETE FROM awo.leases l USING dead d
    WHERE l.job_id = d.id AND l.epoch = d.epoch
    RETURNING l.job_id, l.epoch, l.worker_id, l.heartbeat_at, l.expires_at
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
    FROM gone g LEFT JOIN awo.workers w ON w.worker_id = g.worker_id
    WHERE j.id = g.job_id AND j.lease_epoch = g.epoch AND j.state = 'running'
    RETURNING j.id, j.work_order_id, j.state, j.cancel_requested_at, g.epoch, g.worker_id, w.hostname, w.pid,
        round(extract(epoch FROM now() - g.heartbeat_at)::numeric, 1)::double precision AS silent_seconds,
        CASE
            WHEN w.worker_id IS NULL THEN 'unknown'
            WHEN w.stopped_at IS NOT NULL THEN 'stopped'
            WHEN w.heartbeat_at > g.expires_at THEN 'alive'
            WHEN w.draining_at IS NOT NULL THEN 'draining'
            ELSE 'silent' END AS worker_was
),
closed AS (
    UPDATE awo.attempts a SET ended_at = now(), outcome = 'crashed', error_class = 'lost_worker',
        error_message = format('no heartbeat for %s s from the worker on %s (pid %s), which was %s',
            r.silent_seconds, coalesce(r.hostname, '?'), coalesce(r.pid::text, '?'), r.worker_was),
        silent_seconds = r.silent_seconds, worker_was = r.worker_was,
        cancel_requested_at = coalesce(a.cancel_requested_at, r.cancel_requested_at)
    FROM rescued r WHERE a.job_id = r.id AND a.epoch = r.epoch
),
-- The head of a log hands out its numbers, also against a piece that the dead owner stored in this very
-- moment.
numbered AS (
    INSERT INTO awo.log_heads AS h (agent_work_order_id, epoch, next_seq)
    SELECT r.work_order_id, r.epoch, 2 FROM rescued r WHERE r.work_order_id IS NOT NULL
    ON CONFLICT (agent_work_order_id) DO UPDATE SET next_seq = h.next_seq + 1
    RETURNING h.agent_work_order_id, h.next_seq - 1 AS seq
),
noted AS (
    INSERT INTO awo.log_chunks (agent_work_order_id, seq, epoch, stream, line_count, data)
    SELECT n.agent_work_order_id, n.seq, r.epoch, 'event', 1,
        convert_to(jsonb_build_object('level', 'warning', 'event', 'workflow_rescued',
            'worker_id', r.worker_id, 'worker_hostname', r.hostname, 'worker_pid', r.pid,
            'worker_was', r.worker_was, 'silent_seconds', r.silent_seconds, 'state', r.state)::text || E'\n', 'UTF8')
    FROM numbered n JOIN rescued r ON r.work_order_id = n.agent_work_order_id
)
SELECT r.id AS job_id, r.work_order_id, r.state, r.worker_id, r.silent_seconds, r.worker_was FROM rescued r
