-- Deletes up to $1 jobs of the queue maintenance that ended more than a day ago. Answers how many.
WITH
old AS MATERIALIZED (
    SELECT j.id FROM awo.jobs j
    WHERE j.finished_at IS NOT NULL AND j.queue = 'maintenance' AND j.work_order_id IS NULL
      AND j.finished_at < now() - interval '1 day'
    ORDER BY j.finished_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
),
gone AS (
    DELETE FROM awo.jobs j WHERE j.id = ANY (ARRAY(SELECT old.id FROM old))
)
SELECT count(*) FROM old
