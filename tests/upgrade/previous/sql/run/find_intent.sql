-- The intent and the result of an effect, if one was ever meant.
SELECT intent, result FROM awo.side_effects WHERE job_id = $1 AND kind = $2 AND key = $3
