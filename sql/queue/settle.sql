-- Ends the run of job $1 under epoch $2 with outcome $3 (succeeded, failed, retried, cancelled,
-- interrupted), error class $4, message $5 and, for a retry, a delay of $6 seconds. Changes nothing
-- and answers no row when the epoch is no longer the current one. Lock order: job, then lease.
WITH
owned AS (
    SELECT j.id, j.attempt >= j.max_attempts AS exhausted, j.cancel_requested_at, j.cancel_reason
    FROM awo.jobs j
    WHERE j.id = $1 AND j.lease_epoch = $2 AND j.state = 'running'
    FOR UPDATE
),
released AS (
    DELETE FROM awo.leases l USING owned o WHERE l.job_id = o.id AND l.epoch = $2
    RETURNING l.job_id
),
-- A request to cancel wins over everything but success; a retry needs attempts left.
decided AS (
    SELECT o.id, o.cancel_reason, CASE
        WHEN $3::text = 'succeeded' THEN 'succeeded'
        WHEN $3 = 'cancelled' OR o.cancel_requested_at IS NOT NULL THEN 'cancelled'
        WHEN $3 = 'retried' AND o.exhausted THEN 'failed'
        ELSE $3
    END AS outcome
    FROM owned o JOIN released r ON r.job_id = o.id
),
settled AS (
    UPDATE awo.jobs j SET
        state = (CASE WHEN d.outcome IN ('retried', 'interrupted') THEN 'queued' ELSE d.outcome END)::awo.job_state,
        -- An interruption by a restart of the worker is not the order's fault.
        attempt = CASE WHEN d.outcome = 'interrupted' THEN greatest(j.attempt - 1, 0) ELSE j.attempt END,
        interrupted_count = j.interrupted_count + (d.outcome = 'interrupted')::integer,
        run_at = CASE d.outcome
            WHEN 'retried' THEN now() + $6::double precision * interval '1 second'
            WHEN 'interrupted' THEN now()
            ELSE j.run_at END,
        last_error = CASE d.outcome WHEN 'cancelled' THEN coalesce(d.cancel_reason, $5)
            WHEN 'succeeded' THEN NULL WHEN 'interrupted' THEN j.last_error ELSE $5::text END,
        error_class = CASE d.outcome WHEN 'cancelled' THEN 'cancelled'
            WHEN 'interrupted' THEN j.error_class ELSE $4::text END
    FROM decided d
    WHERE j.id = d.id AND j.state = 'running' AND j.lease_epoch = $2
    RETURNING j.id, j.state, d.outcome
),
closed AS (
    UPDATE awo.attempts a SET ended_at = now(), outcome = s.outcome,
        error_class = CASE WHEN s.outcome = 'cancelled' THEN 'cancelled' ELSE $4 END,
        error_message = $5
    FROM settled s WHERE a.job_id = s.id AND a.epoch = $2
)
SELECT s.state FROM settled s
