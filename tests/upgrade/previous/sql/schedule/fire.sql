-- Fires the schedule $1 at the times $2, which were reckoned from the expression $3 in the zone $4: one
-- job each. Any number of replicas may send this at once. The first one locks the row; the others wait
-- and then find its times behind last_fire_at, and the primary key of cron_fires refuses a time that
-- was fired under a deleted row of the same name. Answers the fires that are this caller's.
WITH
held AS MATERIALIZED (
    SELECT s.name, s.kind, s.payload, s.queue, s.priority, s.skip_while_open,
        greatest(s.active_since, s.last_fire_at) AS after
    FROM awo.schedules s
    WHERE s.name = $1 AND s.expression = $3 AND s.time_zone = $4 AND s.paused_at IS NULL
    FOR NO KEY UPDATE
),
-- The id is drawn first, because the fire names its job. None while the last one is open, when the
-- schedule says so, and then only for the newest of several times.
fire AS (
    INSERT INTO awo.cron_fires (name, fire_at, job_id)
    SELECT h.name, due.fire_at, CASE
        WHEN NOT h.skip_while_open THEN nextval(pg_get_serial_sequence('awo.jobs', 'id'))
        WHEN due.fire_at = (SELECT max(t) FROM unnest($2::timestamptz[]) AS t) AND NOT EXISTS (
            SELECT 1 FROM awo.jobs j WHERE j.idempotency_key = 'schedule:' || h.name
              AND j.state IN ('queued', 'running', 'waiting'))
            THEN nextval(pg_get_serial_sequence('awo.jobs', 'id'))
        END
    FROM held h JOIN unnest($2::timestamptz[]) AS due (fire_at) ON due.fire_at > h.after
    ORDER BY due.fire_at
    ON CONFLICT DO NOTHING
    RETURNING name, fire_at, job_id
),
job AS (
    INSERT INTO awo.jobs (id, kind, payload, queue, priority, idempotency_key)
    SELECT f.job_id, h.kind, h.payload, h.queue, h.priority,
        CASE WHEN h.skip_while_open THEN 'schedule:' || h.name END
    FROM fire f JOIN held h ON h.name = f.name
    WHERE f.job_id IS NOT NULL
    ORDER BY f.fire_at
),
moved AS (
    UPDATE awo.schedules s SET last_fire_at = (SELECT max(t) FROM unnest($2::timestamptz[]) AS t),
        last_error = NULL
    FROM held h
    WHERE s.name = h.name AND h.after < (SELECT max(t) FROM unnest($2::timestamptz[]) AS t)
)
SELECT f.fire_at, f.job_id FROM fire f ORDER BY f.fire_at
