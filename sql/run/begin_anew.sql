-- Counts that the order of job $1 begins anew, under epoch $2, and drops its checkpoints $3; answers the count.
WITH
-- Every statement that takes both locks takes that of the job first.
job AS (SELECT id, work_order_id FROM awo.jobs WHERE id = $1 FOR UPDATE),
owner AS (
    SELECT job.id, job.work_order_id FROM job JOIN awo.leases l ON l.job_id = job.id
    WHERE l.epoch = $2 FOR KEY SHARE OF l
),
history AS (
    UPDATE public.agent_work_order_steps s SET superseded_at = now() FROM owner
    WHERE s.agent_work_order_id = owner.work_order_id AND s.step_name = ANY ($3::text[])
      AND s.superseded_at IS NULL
),
forgotten AS (
    DELETE FROM awo.steps s USING owner WHERE s.job_id = owner.id AND s.step_name = ANY ($3::text[])
)
UPDATE awo.jobs j SET restarts = j.restarts + 1 FROM owner WHERE j.id = owner.id RETURNING j.restarts
