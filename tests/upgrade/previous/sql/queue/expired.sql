-- The first of two looks at leases that ran out: which they are, and when each was last renewed.
-- sql/queue/rescue.sql takes back those that nobody has renewed by the second look.
SELECT l.job_id, l.epoch, l.heartbeat_at
FROM awo.leases l
WHERE l.expires_at < now()
ORDER BY l.expires_at
LIMIT 1000
