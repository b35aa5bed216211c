-- Claims up to $3 jobs of the queues $2 for the worker $1 and leases each for $4 seconds. A job gains
-- one step of priority for every $5 seconds it has waited; 0 turns that off. Answers the claimed
-- jobs, or one row without a job that says in how many seconds the next scheduled one is due.
-- The lock order is job, then lease, as everywhere.
WITH
-- Repositories that are not paused, and how many more of their jobs may run.
room AS MATERIALIZED (
    SELECT r.repo_key, r.max_concurrent - count(l.job_id) AS slots
    FROM awo.repositories r LEFT JOIN awo.leases l ON l.repo_key = r.repo_key
    WHERE r.paused_at IS NULL
    GROUP BY r.repo_key
    HAVING count(l.job_id) < r.max_concurrent
),
-- The first few jobs of each repository with room, by priority and by age, each read in the order of
-- an index: a repository with a hundred thousand jobs waiting costs no more than one with two. Two
-- more than there are slots, in case a neighbour locks the first ones.
head AS MATERIALIZED (
    SELECT h.id, h.repo_key, h.run_at, room.slots,
        h.priority + CASE WHEN $5::double precision > 0
            THEN floor(extract(epoch FROM now() - h.run_at) / $5) ELSE 0 END AS rank
    FROM unnest($2::text[]) AS wanted (queue)
    JOIN awo.queues q ON q.name = wanted.queue AND q.paused_at IS NULL
    CROSS JOIN room
    CROSS JOIN LATERAL (
        (SELECT j.id, j.repo_key, j.priority, j.run_at FROM awo.jobs j
         WHERE j.state = 'queued' AND j.queue = q.name AND j.repo_key = room.repo_key
           AND j.run_at <= now()
         ORDER BY j.priority DESC, j.run_at, j.id
         LIMIT least(room.slots, $3) + 2)
        UNION
        (SELECT j.id, j.repo_key, j.priority, j.run_at FROM awo.jobs j
         WHERE j.state = 'queued' AND j.queue = q.name AND j.repo_key = room.repo_key
           AND j.run_at <= now() AND $5 > 0
         ORDER BY j.run_at, j.id
         LIMIT least(room.slots, $3) + 2)
    ) AS h
),
-- The best of them within each repository's room, so that a full one does not crowd out another.
chosen AS MATERIALIZED (
    SELECT r.id, r.rank, r.run_at
    FROM (SELECT h.*, row_number() OVER (
              PARTITION BY h.repo_key ORDER BY h.rank DESC, h.run_at, h.id) AS nth FROM head h) r
    WHERE r.nth <= r.slots + 2
    ORDER BY r.rank DESC, r.run_at, r.id
    LIMIT $3 + 16
),
-- Locked one by one in that order until there are enough. A join that the planner may turn around
-- would read every waiting job.
candidate AS MATERIALIZED (
    SELECT l.id, l.repo_key, l.lease_epoch,
        row_number() OVER (PARTITION BY l.repo_key ORDER BY l.place) AS nth
    FROM (
        SELECT j.id, j.repo_key, j.lease_epoch, c.place
        FROM (SELECT id, row_number() OVER (ORDER BY rank DESC, run_at, id) AS place
              FROM chosen ORDER BY place) c
        CROSS JOIN LATERAL (
            SELECT j.id, j.repo_key, j.lease_epoch FROM awo.jobs j
            WHERE j.id = c.id AND j.state = 'queued'
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS j
        LIMIT $3
    ) AS l
),
-- The free slots of their repositories; a slot is free when no lease holds its number.
free AS MATERIALIZED (
    SELECT r.repo_key, s.slot, row_number() OVER (PARTITION BY r.repo_key ORDER BY s.slot) AS nth
    FROM (SELECT DISTINCT c.repo_key FROM candidate c) wanted
    JOIN awo.repositories r ON r.repo_key = wanted.repo_key
    CROSS JOIN LATERAL generate_series(1, r.max_concurrent) AS s (slot)
    WHERE NOT EXISTS (SELECT 1 FROM awo.leases l WHERE l.repo_key = r.repo_key AND l.slot = s.slot)
),
-- The unique constraint on (repo_key, slot) decides between claims that race for one slot: the later
-- one waits for the earlier, so all of them take slots in one order.
leased AS (
    INSERT INTO awo.leases (job_id, epoch, worker_id, repo_key, slot, expires_at)
    SELECT c.id, c.lease_epoch + 1, $1, c.repo_key, f.slot, now() + $4 * interval '1 second'
    FROM candidate c
    JOIN free f ON f.repo_key = c.repo_key AND f.nth = c.nth
    JOIN room ON room.repo_key = c.repo_key AND c.nth <= room.slots
    ORDER BY c.repo_key, f.slot
    ON CONFLICT DO NOTHING
    RETURNING job_id, epoch
),
started AS (
    UPDATE awo.jobs j SET state = 'running', attempt = j.attempt + 1, lease_epoch = l.epoch
    FROM leased l WHERE j.id = l.job_id AND j.state = 'queued'
    RETURNING j.*
),
recorded AS (
    INSERT INTO awo.attempts (job_id, epoch, attempt, worker_id)
    SELECT s.id, s.lease_epoch, s.attempt, $1 FROM started s
)
SELECT s.id AS job_id, s.lease_epoch AS epoch, s.kind, s.work_order_id, s.attempt, s.max_attempts,
    s.crash_count, s.payload, s.traceparent, s.queue,
    greatest(extract(epoch FROM now() - s.run_at), 0)::double precision AS waited_seconds,
    idle.due_seconds
FROM started s
FULL JOIN (
    SELECT (SELECT extract(epoch FROM min(j.run_at) - now())::double precision FROM awo.jobs j
            WHERE j.state = 'queued' AND j.run_at > now() AND j.queue = ANY ($2)) AS due_seconds
    WHERE NOT EXISTS (SELECT 1 FROM started)
) AS idle ON false
ORDER BY s.priority DESC, s.run_at, s.id
