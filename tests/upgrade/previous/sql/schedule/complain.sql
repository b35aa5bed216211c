-- Notes why the schedule $1 with the expression $3 in the zone $4 cannot fire.
UPDATE awo.schedules SET last_error = $2
WHERE name = $1 AND expression = $3 AND time_zone = $4 AND last_error IS DISTINCT FROM $2
