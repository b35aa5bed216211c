-- Drops the checkpoints $3 of job $1 under epoch $2: their results are gone with the sandbox.
WITH
owner AS (SELECT job_id FROM awo.leases WHERE job_id = $1 AND epoch = $2 FOR KEY SHARE),
history AS (
    UPDATE public.agent_work_order_steps s SET superseded_at = now()
    FROM owner JOIN awo.jobs j ON j.id = owner.job_id
    WHERE s.agent_work_order_id = j.work_order_id AND s.step_name = ANY ($3::text[])
      AND s.superseded_at IS NULL
)
DELETE FROM awo.steps s USING owner
WHERE s.job_id = owner.job_id AND s.step_name = ANY ($3::text[])
