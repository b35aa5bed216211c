-- Seconds until the next scheduled job of the queues $1 is due, if there is one.
SELECT extract(epoch FROM min(run_at) - now())::double precision FROM awo.jobs
WHERE state = 'queued' AND run_at > now() AND queue = ANY ($1)
