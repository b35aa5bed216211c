-- Deletes up to $2 fires of schedules from more than $1 days ago. A schedule knows its last fire itself.
-- These rows are locked and never updated, so their place is their name.
-- Answers how many.
WITH
old AS MATERIALIZED (
    SELECT f.ctid FROM awo.cron_fires f
    WHERE f.fire_at < now() - $1::integer * interval '1 day'
    ORDER BY f.fire_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
),
gone AS (
    DELETE FROM awo.cron_fires f WHERE f.ctid = ANY (ARRAY(SELECT old.ctid FROM old))
)
SELECT count(*) FROM old
