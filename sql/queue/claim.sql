-- Claims up to $3 jobs of the queues $2 for the worker $1 and leases each for $4 seconds.
-- The lock order is job, then lease, as everywhere.
WITH
-- The free slots of every repository that is not paused; a slot number is a row nobody holds.
free AS MATERIALIZED (
    SELECT r.repo_key, slot, row_number() OVER (PARTITION BY r.repo_key ORDER BY slot) AS nth
    FROM awo.repositories r
    CROSS JOIN LATERAL generate_series(1, r.max_concurrent) AS slot
    WHERE r.paused_at IS NULL
      AND NOT EXISTS (SELECT 1 FROM awo.leases l WHERE l.repo_key = r.repo_key AND l.slot = slot.slot)
),
room AS MATERIALIZED (SELECT repo_key, count(*) AS slots FROM free GROUP BY repo_key),
-- The first few jobs of each repository with room, each group read in index order: a repository
-- with a hundred thousand jobs waiting costs no more than one with two. Two heads more than there
-- are slots, in case a neighbour locks the first ones.
head AS MATERIALIZED (
    SELECT h.id, h.repo_key, h.priority, h.run_at
    FROM unnest($2::text[]) AS wanted (queue)
    JOIN awo.queues q ON q.name = wanted.queue AND q.paused_at IS NULL
    CROSS JOIN room
    CROSS JOIN LATERAL (
        SELECT j.id, j.repo_key, j.priority, j.run_at FROM awo.jobs j
        WHERE j.state = 'queued' AND j.queue = q.name AND j.repo_key = room.repo_key
          AND j.run_at <= now()
        ORDER BY j.priority DESC, j.run_at, j.id
        LIMIT least(room.slots, $3) + 2
    ) AS h
),
-- The best of them within each repository's room, so that a full one does not crowd out another.
chosen AS MATERIALIZED (
    SELECT r.id, r.priority, r.run_at
    FROM (SELECT h.*, row_number() OVER (
              PARTITION BY h.repo_key ORDER BY h.priority DESC, h.run_at, h.id) AS nth FROM head h) r
    JOIN room ON room.repo_key = r.repo_key AND r.nth <= room.slots + 2
    ORDER BY r.priority DESC, r.run_at, r.id
    LIMIT $3 + 16
),
candidate AS (
    SELECT j.id, j.repo_key, j.lease_epoch, j.priority, j.run_at
    FROM chosen c JOIN awo.jobs j ON j.id = c.id
    WHERE j.state = 'queued'
    ORDER BY c.priority DESC, c.run_at, c.id
    LIMIT $3
    FOR UPDATE OF j SKIP LOCKED
),
numbered AS (
    SELECT c.*, row_number() OVER (
        PARTITION BY c.repo_key ORDER BY c.priority DESC, c.run_at, c.id) AS nth
    FROM candidate c
),
-- The unique constraint on (repo_key, slot) decides between claims that race for one slot: the later
-- one waits for the earlier, so all of them take slots in one order.
leased AS (
    INSERT INTO awo.leases (job_id, epoch, worker_id, repo_key, slot, expires_at)
    SELECT n.id, n.lease_epoch + 1, $1, n.repo_key, f.slot, now() + $4 * interval '1 second'
    FROM numbered n JOIN free f ON f.repo_key = n.repo_key AND f.nth = n.nth
    ORDER BY n.repo_key, f.slot
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
    greatest(extract(epoch FROM now() - s.run_at), 0)::double precision AS waited_seconds
FROM started s
ORDER BY s.priority DESC, s.run_at, s.id
