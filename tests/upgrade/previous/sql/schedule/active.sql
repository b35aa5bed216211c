-- Every schedule that may fire, the time after which its next fire lies, and the database's time.
SELECT name, expression, time_zone, missed_fires, catch_up_limit, last_error,
    greatest(active_since, last_fire_at) AS after, clock_timestamp() AS now
FROM awo.schedules
WHERE paused_at IS NULL
ORDER BY name
