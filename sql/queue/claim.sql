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
-- The front of each queue, by priority and by age. Only what has waited for a whole step can have
-- gained one: the second index is not walked while nothing is old.
front AS MATERIALIZED (
    SELECT f.* FROM unnest($2::text[]) AS wanted (queue)
    JOIN awo.queues q ON q.name = wanted.queue AND q.paused_at IS NULL
    CROSS JOIN LATERAL (
        (SELECT j.id, j.repo_key, j.priority, j.run_at FROM awo.jobs j
         WHERE j.state = 'queued' AND j.queue = q.name AND j.run_at <= now()
         ORDER BY j.priority DESC, j.run_at, j.id LIMIT 2 * $3 + 32)
        UNION
        (SELECT j.id, j.repo_key, j.priority, j.run_at FROM awo.jobs j
         WHERE j.state = 'queued' AND j.queue = q.name
           AND j.run_at <= now() - $5::double precision * interval '1 second' AND $5 > 0
         ORDER BY j.run_at, j.id LIMIT 2 * $3 + 32)
    ) AS f
),
ranked AS MATERIALIZED (
    SELECT f.id, f.run_at, f.rank, room.slots, row_number() OVER (
        PARTITION BY f.repo_key ORDER BY f.rank DESC, f.run_at, f.id) AS nth
    FROM (SELECT f.*, f.priority + CASE WHEN $5 > 0
              THEN floor(extract(epoch FROM now() - f.run_at) / $5) ELSE 0 END AS rank FROM front f) f
    JOIN room ON room.repo_key = f.repo_key
),
-- Whether the front holds enough jobs that may run, or is all there is.
enough AS MATERIALIZED (
    SELECT (SELECT count(*) FROM ranked WHERE nth <= slots) >= $3
        OR (SELECT count(*) FROM front) < 2 * $3 + 32 AS yes
),
-- If not, repositories without room block it: then the best few jobs of each repository with room, so
-- that one with a hundred thousand jobs waiting hides no other and costs no more than one with two.
head AS MATERIALIZED (
    SELECT h.*, room.slots
    FROM unnest($2::text[]) AS wanted (queue)
    JOIN awo.queues q ON q.name = wanted.queue AND q.paused_at IS NULL
    CROSS JOIN room
    CROSS JOIN LATERAL (
        SELECT b.id, b.run_at, b.rank, row_number() OVER (ORDER BY b.rank DESC, b.run_at, b.id) AS nth
        FROM (SELECT b.*, b.priority + CASE WHEN $5 > 0
                  THEN floor(extract(epoch FROM now() - b.run_at) / $5) ELSE 0 END AS rank
            FROM (
                (SELECT j.id, j.priority, j.run_at FROM awo.jobs j
                 WHERE j.state = 'queued' AND j.queue = q.name AND j.repo_key = room.repo_key
                   AND j.run_at <= now()
                 ORDER BY j.priority DESC, j.run_at, j.id LIMIT least(room.slots, $3) + 2)
                UNION
                (SELECT j.id, j.priority, j.run_at FROM awo.jobs j
                 WHERE j.state = 'queued' AND j.queue = q.name AND j.repo_key = room.repo_key
                   AND j.run_at <= now() - $5 * interval '1 second' AND $5 > 0
                 ORDER BY j.run_at, j.id LIMIT least(room.slots, $3) + 2)
            ) AS b) AS b
    ) AS h
    WHERE NOT (SELECT yes FROM enough)
),
-- Those that fit into their repository's room first; the others are spare, in case a neighbour holds
-- the lock of one of the first.
chosen AS MATERIALIZED (
    SELECT c.id, row_number() OVER (ORDER BY c.nth > c.slots, c.rank DESC, c.run_at, c.id) AS place
    FROM (SELECT id, run_at, rank, nth, slots FROM ranked WHERE (SELECT yes FROM enough)
          UNION ALL SELECT id, run_at, rank, nth, slots FROM head) c
    ORDER BY place LIMIT 2 * $3 + 32
),
-- Locked one by one in that order until there are enough. A join that the planner may turn around
-- would read every waiting job.
candidate AS MATERIALIZED (
    SELECT l.id, l.repo_key, l.lease_epoch,
        row_number() OVER (PARTITION BY l.repo_key ORDER BY l.place) AS nth
    FROM (
        SELECT j.id, j.repo_key, j.lease_epoch, c.place
        FROM (SELECT * FROM chosen ORDER BY place) c
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
    s.crash_count, s.waits, s.put_back_count, s.put_back_since, s.payload, s.traceparent, s.queue,
    greatest(extract(epoch FROM now() - s.run_at), 0)::double precision AS waited_seconds,
    idle.due_seconds
FROM started s
FULL JOIN (
    -- Neighbours were faster at all of them: look again in a moment.
    SELECT CASE WHEN EXISTS (SELECT 1 FROM chosen) THEN 0.25 ELSE (
        SELECT extract(epoch FROM min(next.run_at) - now())::double precision
        FROM unnest($2) AS wanted (queue)
        CROSS JOIN LATERAL (
            SELECT j.run_at FROM awo.jobs j
            WHERE j.state = 'queued' AND j.queue = wanted.queue AND j.run_at > now()
            ORDER BY j.run_at LIMIT 1) AS next) END AS due_seconds
    WHERE NOT EXISTS (SELECT 1 FROM started)
) AS idle ON false
ORDER BY s.priority DESC, s.run_at, s.id
