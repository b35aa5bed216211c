-- Whether this connection still listens: a pooler or a failover drops that without an error.
SELECT count(*) = 3 FROM pg_listening_channels() AS channel
WHERE channel IN ('awo_jobs', 'awo_cancel', 'awo_schedules')
