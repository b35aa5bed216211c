-- Deletes up to $2 jobs that ended more than $1 days ago, with their orders and all that belongs to them;
-- the oldest first. One that is locked is left for another time, and one that was requeued meanwhile is
-- no longer ended when its lock is had. Answers how many.
WITH
old AS MATERIALIZED (
    SELECT j.id, j.work_order_id FROM awo.jobs j
    WHERE j.finished_at IS NOT NULL AND j.finished_at < now() - $1::integer * interval '1 day'
      AND j.state IN ('succeeded', 'failed', 'cancelled')
    ORDER BY j.finished_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
),
-- The job goes with its order. Arrays, because a join might read every order there is.
orders AS (
    DELETE FROM public.agent_work_orders o
    WHERE o.agent_work_order_id = ANY (ARRAY(SELECT old.work_order_id FROM old))
),
jobs AS (
    DELETE FROM awo.jobs j
    WHERE j.id = ANY (ARRAY(SELECT old.id FROM old WHERE old.work_order_id IS NULL))
)
SELECT count(*) FROM old
