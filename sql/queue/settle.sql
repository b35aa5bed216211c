-- Ends runs: jobs $1 under epochs $2 with outcomes $3 (succeeded, failed, retried, cancelled,
-- interrupted, put_back), error classes $4, messages $5 and, for what goes back to the queue, delays of $6
-- seconds. What is put back is interrupted, and counted until a claim ends in another way. A retry with a patience of $7 seconds is one of a failure outside of the order: it spends no
-- attempt, and is granted for that long since the first of its kind, $8 seconds that the failing side asked
-- for not counted, or a week more. A step that succeeded since ends the wait. What is asked under an epoch
-- that is no longer the current one changes nothing and is not in the answer, which says what became of each.
-- Lock order: job, then lease; several of them in the order of their ids. The log comes after both: triggers
-- tell the order's log of what is done here.
WITH
asked AS MATERIALIZED (
    SELECT a.* FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[],
        $6::double precision[], $7::double precision[], $8::double precision[])
        AS a (job_id, epoch, outcome, class, message, delay, patience, asked)
    ORDER BY a.job_id
),
locked AS MATERIALIZED (
    SELECT a.*, j.* FROM asked a
    CROSS JOIN LATERAL (
        SELECT j.attempt, j.max_attempts, j.cancel_requested_at, j.cancel_reason,
            j.waiting_since, j.gives_up_at, j.waits
        FROM awo.jobs j JOIN awo.leases l ON l.job_id = j.id AND l.epoch = j.lease_epoch
        WHERE j.id = a.job_id AND j.lease_epoch = a.epoch AND j.state = 'running'
        FOR NO KEY UPDATE OF j FOR UPDATE OF l
    ) AS j
),
-- Since when the order waits out a failure of this kind, and until when: one that begins, or goes on.
patient AS (
    SELECT w.*, least(
        CASE WHEN w.asked > 0 THEN greatest(w.until, now() + (w.asked + w.patience) * interval '1 second')
             ELSE w.until END,
        w.since + w.patience * interval '1 second' + interval '7 days') AS ends
    FROM (
        SELECT p.*,
            CASE WHEN p.goes_on THEN p.waiting_since ELSE now() END AS since,
            CASE WHEN p.goes_on THEN p.gives_up_at
                 WHEN p.patience IS NOT NULL THEN now() + p.patience * interval '1 second' END AS until,
            CASE WHEN p.goes_on THEN p.waits ELSE 0 END + 1 AS failures
        FROM (
            SELECT l.*, l.patience IS NOT NULL AND l.waiting_since IS NOT NULL AND l.gives_up_at IS NOT NULL
                AND NOT EXISTS (SELECT 1 FROM awo.steps s
                    WHERE s.job_id = l.job_id AND s.finished_at > l.waiting_since) AS goes_on
            FROM locked l
        ) AS p
    ) AS w
),
-- A request to cancel wins over everything but success; a retry needs attempts or time left.
owned AS MATERIALIZED (
    SELECT p.job_id, p.epoch, p.class, p.cancel_reason, p.outcome = 'retried' AND p.patience IS NOT NULL AS waits,
        p.outcome = 'put_back' AS put_back,
        p.since, p.ends, p.failures,
        least(p.delay, extract(epoch FROM p.ends - now())) AS delay,
        p.message || CASE WHEN p.outcome = 'retried' AND now() >= p.ends THEN format(
            '; tried again for %s and gave up (AWO_RETRY_FOR): requeue the order when the cause is gone',
            date_trunc('second', now() - p.since)) ELSE '' END AS message,
        CASE
            WHEN p.outcome = 'succeeded' THEN 'succeeded'
            WHEN p.outcome = 'cancelled' OR p.cancel_requested_at IS NOT NULL THEN 'cancelled'
            WHEN p.outcome = 'retried' AND p.patience IS NULL AND p.attempt >= p.max_attempts THEN 'failed'
            WHEN p.outcome = 'retried' AND now() >= p.ends THEN 'failed'
            WHEN p.outcome = 'put_back' THEN 'interrupted'
            ELSE p.outcome
        END AS outcome
    FROM patient p
),
released AS (
    DELETE FROM awo.leases l USING owned o
    WHERE l.job_id = o.job_id AND l.epoch = o.epoch
    RETURNING o.*
),
-- Every one of these rows is locked and was 'running' when it was. The state is not asked for again
-- here because the planner would then read all running jobs instead of these.
settled AS (
    UPDATE awo.jobs j SET
        state = (CASE WHEN r.outcome IN ('retried', 'interrupted') THEN 'queued' ELSE r.outcome END)::awo.job_state,
        -- An interruption by a restart of the worker is not the order's fault, nor is what it waits out.
        attempt = CASE WHEN r.outcome = 'interrupted' OR (r.outcome = 'retried' AND r.waits)
            THEN greatest(j.attempt - 1, 0) ELSE j.attempt END,
        waiting_since = CASE WHEN r.outcome = 'interrupted' THEN j.waiting_since WHEN r.waits THEN r.since END,
        gives_up_at = CASE WHEN r.outcome = 'interrupted' THEN j.gives_up_at WHEN r.waits THEN r.ends END,
        waits = CASE WHEN r.outcome = 'interrupted' THEN j.waits WHEN r.waits THEN r.failures ELSE 0 END,
        interrupted_count = j.interrupted_count + (r.outcome = 'interrupted')::integer,
        put_back_count = CASE WHEN r.put_back THEN j.put_back_count + 1 ELSE 0 END,
        put_back_since = CASE WHEN r.put_back THEN coalesce(j.put_back_since, now()) END,
        run_at = CASE WHEN r.outcome IN ('retried', 'interrupted')
            THEN now() + r.delay * interval '1 second' ELSE j.run_at END,
        last_error = CASE r.outcome WHEN 'cancelled' THEN coalesce(r.cancel_reason, r.message)
            WHEN 'succeeded' THEN NULL WHEN 'interrupted' THEN j.last_error ELSE r.message END,
        error_class = CASE r.outcome WHEN 'cancelled' THEN 'cancelled'
            WHEN 'interrupted' THEN j.error_class ELSE r.class END
    FROM released r
    WHERE j.id = r.job_id AND j.lease_epoch = r.epoch
    RETURNING j.id, j.state, j.cancel_requested_at, r.epoch, r.outcome, r.class, r.message
),
closed AS (
    UPDATE awo.attempts a SET ended_at = now(), outcome = s.outcome,
        error_class = CASE WHEN s.outcome = 'cancelled' THEN 'cancelled' ELSE s.class END,
        error_message = s.message,
        -- A run that ended before its worker heard of the request answers it by ending.
        cancel_requested_at = coalesce(a.cancel_requested_at, s.cancel_requested_at),
        cancel_acknowledged_at = CASE WHEN s.outcome = 'cancelled'
            THEN coalesce(a.cancel_acknowledged_at, now()) ELSE a.cancel_acknowledged_at END
    FROM settled s WHERE a.job_id = s.id AND a.epoch = s.epoch
)
SELECT s.id AS job_id, s.epoch, s.state, s.outcome,
    CASE WHEN s.outcome = 'cancelled' THEN 'cancelled' ELSE s.class END AS class
FROM settled s
