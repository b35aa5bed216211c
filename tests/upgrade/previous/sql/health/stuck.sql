-- What needs a person, the longest first; the hundred worst.
SELECT problem, coalesce(work_order_id, job_id::text) AS subject,
    extract(epoch FROM since)::double precision AS seconds
FROM awo.stuck
ORDER BY since DESC
LIMIT 100
