-- The programs of the workers that are alive, and how many workers run each.
SELECT version, count(*) AS workers
FROM awo.worker_health
WHERE state IN ('alive', 'draining')
GROUP BY version
ORDER BY version
