-- Notes, before it starts, the run $3 of an agent for the step $4 in its attempt $5, in the conversation $6 and with
-- its output in $7, under job $1 and epoch $2. Answers what earlier runs of the conversation left behind, or no
-- row when the epoch is stale; said again it changes nothing and answers the same.
WITH
owner AS (SELECT job_id FROM awo.leases WHERE job_id = $1 AND epoch = $2 FOR KEY SHARE),
begun AS (
    INSERT INTO awo.agent_runs (run_id, job_id, epoch, step_name, attempt, session_id, spool)
    SELECT $3, $1, $2, $4, $5, $6, $7 FROM owner
    ON CONFLICT (run_id) DO NOTHING
)
SELECT awo.earlier_usage($1, $6, coalesce(
    (SELECT r.id FROM awo.agent_runs r WHERE r.run_id = $3), 9223372036854775807))
FROM owner
