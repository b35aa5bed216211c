-- What all replicas show alike, besides queues and workers: jobs that need a person, up to a thousand;
-- promises that the last check found broken, unless it was too long ago; orders that ended within the last
-- hour, by status, in whatever way.
SELECT (SELECT count(*) FROM (SELECT 1 FROM awo.stuck LIMIT 1000) AS s) AS stuck,
    (SELECT c.found::bigint FROM awo.checks c
     WHERE c.name = 'broken_promises' AND c.checked_at > now() - interval '30 minutes') AS broken_promises,
    count(*) FILTER (WHERE j.state = 'succeeded') AS completed,
    count(*) FILTER (WHERE j.state = 'failed') AS failed,
    count(*) FILTER (WHERE j.state = 'cancelled') AS cancelled
FROM awo.jobs j
WHERE j.finished_at > now() - interval '1 hour' AND j.kind = 'work_order'
