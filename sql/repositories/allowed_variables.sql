-- The names of the variables of workers that agents of any repository may have.
SELECT DISTINCT unnest(agent_environment) AS name FROM awo.repositories ORDER BY name
