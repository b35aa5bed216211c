-- Ends runs: jobs $1 under epochs $2 with outcomes $3 (succeeded, failed, retried, cancelled,
-- interrupted), error classes $4, messages $5 and, for what goes back to the queue, delays of $6
-- seconds. What is asked under an epoch that is no longer the current one changes nothing and is not
-- in the answer.
-- Lock order: job, then lease; several of them in the order of their ids.
WITH
asked AS MATERIALIZED (
    SELECT a.* FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[],
        $6::double precision[]) AS a (job_id, epoch, outcome, class, message, delay)
    ORDER BY a.job_id
),
-- A request to cancel wins over everything but success; a retry needs attempts left.
owned AS MATERIALIZED (
    SELECT a.job_id, a.epoch, a.class, a.message, a.delay, j.cancel_reason, CASE
        WHEN a.outcome = 'succeeded' THEN 'succeeded'
        WHEN a.outcome = 'cancelled' OR j.cancel_requested_at IS NOT NULL THEN 'cancelled'
        WHEN a.outcome = 'retried' AND j.attempt >= j.max_attempts THEN 'failed'
        ELSE a.outcome
    END AS outcome
    FROM asked a
    CROSS JOIN LATERAL (
        SELECT j.attempt, j.max_attempts, j.cancel_requested_at, j.cancel_reason
        FROM awo.jobs j JOIN awo.leases l ON l.job_id = j.id AND l.epoch = j.lease_epoch
        WHERE j.id = a.job_id AND j.lease_epoch = a.epoch AND j.state = 'running'
        FOR NO KEY UPDATE OF j FOR UPDATE OF l
    ) AS j
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
        -- An interruption by a restart of the worker is not the order's fault.
        attempt = CASE WHEN r.outcome = 'interrupted' THEN greatest(j.attempt - 1, 0) ELSE j.attempt END,
        interrupted_count = j.interrupted_count + (r.outcome = 'interrupted')::integer,
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
SELECT s.id AS job_id, s.epoch, s.state FROM settled s
