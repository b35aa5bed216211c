-- How far the cancel of order $1 has come, in its newest attempt; no row when there is no such order.
SELECT o.status, c.requested_at, c.acknowledged_at, c.tree_empty_at, c.released_at,
    c.acknowledged_seconds, c.tree_empty_seconds, c.released_seconds
FROM public.agent_work_orders o
LEFT JOIN LATERAL (
    SELECT * FROM awo.cancellations c
    WHERE c.job_id = o.awo_job_id
    ORDER BY c.requested_at DESC
    LIMIT 1
) AS c ON true
WHERE o.agent_work_order_id = $1
