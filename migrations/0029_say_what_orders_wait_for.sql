-- What an order waits for, in a fixed vocabulary: one function that the command line, the API and people who
-- read with SQL all ask.

ALTER TABLE awo.workers
    ADD COLUMN kinds text[],             -- the kinds of jobs it can run; NULL: a program that did not say
    ADD COLUMN claims_nothing_because text CHECK (claims_nothing_because IN ('disk'));
COMMENT ON COLUMN awo.workers.claims_nothing_because IS
    'Why the worker is alive and claims no orders: disk (a volume is below its mark). NULL: it claims';

-- The reason why each of `jobs` does not run. Jobs that run or have ended are left out.
--   approval           it waits for a person's decision
--   queue_paused       nothing of its queue is claimed
--   repository_paused  nothing of its repository is claimed
--   put_back           a worker had it and could not run it for now (its sandbox is still locked)
--   retry              its last attempt failed, the next one has a time
--   scheduled          it is not due yet
--   no_worker          no worker that is alive and does not drain serves its queue
--   kind_unknown       no such worker can run its kind of job
--   disk_low           every such worker has a volume below its mark
--   repository_full    as many orders of its repository run as may at once
--   workers_busy       every slot is taken
--   next_claim         nothing: a free worker takes it in a moment
-- The first one that holds is the reason. A worker counts as alive for a minute after its last heartbeat, as
-- in awo.worker_health. `place` is 1 for the job that runs next, by priority and time; it is counted among the
-- first 1,000 of a queue, and a long wait can still move a job up.
CREATE FUNCTION awo.waiting_for(jobs bigint[])
RETURNS TABLE (job_id bigint, reason text, since timestamptz, until timestamptz, facts jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH asked AS MATERIALIZED (
    SELECT j.* FROM awo.jobs j
    WHERE j.id = ANY (waiting_for.jobs) AND j.state IN ('queued', 'waiting')
),
-- A worker has a lane for orders and a lane of one slot for maintenance.
lane AS MATERIALIZED (
    SELECT q.name, q.paused_at, w.worker_id, w.kinds, w.draining_at, w.claims_nothing_because,
        CASE WHEN q.name = 'maintenance' THEN 1 ELSE w.max_concurrent END AS slots,
        (SELECT count(*) FROM awo.leases l JOIN awo.jobs j ON j.id = l.job_id
         WHERE l.worker_id = w.worker_id AND (j.queue = 'maintenance') = (q.name = 'maintenance')) AS running
    FROM awo.queues q
    LEFT JOIN awo.workers w ON w.heartbeat_at >= now() - interval '1 minute' AND w.stopped_at IS NULL
        AND (q.name = 'maintenance' OR q.name = ANY (w.queues))
    WHERE q.name IN (SELECT a.queue FROM asked a)
),
served AS MATERIALIZED (
    SELECT l.name, l.paused_at,
        count(l.worker_id) FILTER (WHERE l.draining_at IS NULL) AS workers,
        count(l.worker_id) FILTER (WHERE l.draining_at IS NOT NULL) AS draining,
        count(l.worker_id) FILTER (WHERE l.draining_at IS NULL AND l.claims_nothing_because IS NULL) AS claiming,
        coalesce(sum(l.slots) FILTER (WHERE l.draining_at IS NULL AND l.claims_nothing_because IS NULL), 0) AS slots,
        coalesce(sum(l.running) FILTER (WHERE l.draining_at IS NULL AND l.claims_nothing_because IS NULL), 0) AS running,
        bool_or(l.slots > l.running) FILTER (WHERE l.draining_at IS NULL AND l.claims_nothing_because IS NULL)
            AS has_room
    FROM lane l GROUP BY l.name, l.paused_at
),
repository AS MATERIALIZED (
    SELECT r.repo_key, r.paused_at, r.max_concurrent,
        (SELECT count(*) FROM awo.leases l WHERE l.repo_key = r.repo_key) AS running
    FROM awo.repositories r
),
front AS MATERIALIZED (
    SELECT f.id, row_number() OVER (PARTITION BY s.name ORDER BY f.priority DESC, f.run_at, f.id) AS place
    FROM served s
    CROSS JOIN LATERAL (
        SELECT j.id, j.priority, j.run_at FROM awo.jobs j
        JOIN repository r ON r.repo_key = j.repo_key AND r.paused_at IS NULL AND r.running < r.max_concurrent
        WHERE j.state = 'queued' AND j.queue = s.name AND j.run_at <= now()
        ORDER BY j.priority DESC, j.run_at, j.id LIMIT 1000
    ) AS f
    WHERE NOT s.has_room
),
judged AS (
    SELECT a.*, s.paused_at AS queue_paused_at, s.workers, s.draining, s.slots, s.running AS slots_taken,
        r.paused_at AS repository_paused_at, r.max_concurrent, r.running AS repository_running, f.place,
        CASE
            WHEN a.state = 'waiting' THEN 'approval'
            WHEN s.paused_at IS NOT NULL THEN 'queue_paused'
            WHEN r.paused_at IS NOT NULL THEN 'repository_paused'
            WHEN NOT known.kind AND s.workers > 0 THEN 'kind_unknown'
            WHEN a.run_at > now() AND a.put_back_count > 0 THEN 'put_back'
            WHEN a.run_at > now() AND a.last_error IS NOT NULL THEN 'retry'
            WHEN a.run_at > now() THEN 'scheduled'
            WHEN s.workers = 0 THEN 'no_worker'
            WHEN s.claiming = 0 THEN 'disk_low'
            WHEN r.running >= r.max_concurrent THEN 'repository_full'
            WHEN NOT s.has_room THEN 'workers_busy'
            ELSE 'next_claim'
        END AS reason
    FROM asked a
    JOIN served s ON s.name = a.queue
    JOIN repository r ON r.repo_key = a.repo_key
    LEFT JOIN front f ON f.id = a.id
    CROSS JOIN LATERAL (
        SELECT EXISTS (SELECT 1 FROM lane l WHERE l.name = a.queue AND l.draining_at IS NULL
            AND (l.kinds IS NULL OR a.kind = ANY (l.kinds))) AS kind
    ) AS known
)
SELECT j.id, j.reason,
    CASE j.reason
        WHEN 'queue_paused' THEN j.queue_paused_at
        WHEN 'repository_paused' THEN j.repository_paused_at
        WHEN 'put_back' THEN j.put_back_since
        WHEN 'retry' THEN j.waiting_since
        WHEN 'scheduled' THEN j.created_at
        ELSE greatest(j.run_at, j.created_at)
    END,
    CASE WHEN j.reason IN ('put_back', 'retry', 'scheduled') THEN j.run_at END,
    jsonb_strip_nulls(CASE j.reason
        WHEN 'queue_paused' THEN jsonb_build_object('queue', j.queue)
        WHEN 'repository_paused' THEN jsonb_build_object('repository', j.repo_key)
        WHEN 'kind_unknown' THEN jsonb_build_object('kind', j.kind)
        WHEN 'put_back' THEN jsonb_build_object('times', j.put_back_count, 'error',
            (SELECT awo.short(t.error_message) FROM awo.attempts t WHERE t.job_id = j.id AND t.epoch = j.lease_epoch))
        WHEN 'retry' THEN jsonb_build_object('error_class', j.error_class, 'error', awo.short(j.last_error),
            'attempt', j.attempt, 'max_attempts', j.max_attempts, 'gives_up_at', j.gives_up_at)
        WHEN 'no_worker' THEN jsonb_build_object('queue', j.queue, 'draining', j.draining)
        WHEN 'disk_low' THEN jsonb_build_object('queue', j.queue, 'workers', j.workers)
        WHEN 'repository_full' THEN jsonb_build_object(
            'repository', j.repo_key, 'running', j.repository_running, 'limit', j.max_concurrent)
        WHEN 'workers_busy' THEN jsonb_build_object('queue', j.queue, 'running', j.slots_taken,
            'slots', j.slots, 'workers', j.workers, 'place', j.place)
        ELSE '{}' END)
FROM judged j
$$;

-- The same of one order, as one document: {"reason": …, "since": …, "until": …, facts}. NULL when it does
-- not wait.
CREATE FUNCTION awo.waiting_for(work_order text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object('reason', w.reason, 'since', w.since, 'until', w.until)) || w.facts
    FROM awo.jobs j CROSS JOIN LATERAL awo.waiting_for(ARRAY[j.id]) AS w
    WHERE j.work_order_id = waiting_for.work_order
$$;

-- As in 0023, of all orders that wait, whatever for.
CREATE OR REPLACE VIEW awo.waiting AS
SELECT j.work_order_id, j.id AS job_id, CASE WHEN w.reason = 'retry' THEN j.run_at END AS next_attempt_at,
    j.error_class, j.last_error, j.attempt, j.max_attempts, j.waiting_since, j.gives_up_at, j.waits,
    w.reason, w.since, w.until, w.facts
FROM awo.jobs j
JOIN awo.waiting_for(ARRAY(SELECT q.id FROM awo.jobs q WHERE q.state IN ('queued', 'waiting'))) w ON w.job_id = j.id;

REVOKE ALL ON FUNCTION awo.waiting_for(bigint[]), awo.waiting_for(text) FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'service_role') THEN
        GRANT EXECUTE ON FUNCTION awo.waiting_for(bigint[]), awo.waiting_for(text) TO service_role;
    END IF;
END $$;
