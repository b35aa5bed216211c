-- How the orders $1 stand, one row for each: no status for one that does not exist; whether anything
-- of it waits or runs; how many seconds ago it ended. $2 are the generations of the sandboxes found under
-- these ids, NULL where none is recorded: how many seconds ago the order of that generation was deleted.
SELECT n.id, o.status, o.repository_url,
    coalesce(j.open, false) OR coalesce(o.status IN ('pending', 'running'), false) AS is_open,
    extract(epoch FROM now() - coalesce(j.finished_at, o.finished_at, o.updated_at))::double precision
        AS ended_seconds,
    extract(epoch FROM now() - d.deleted_at)::double precision AS deleted_seconds
FROM unnest($1::text[], $2::bigint[]) AS n (id, generation)
LEFT JOIN public.agent_work_orders o ON o.agent_work_order_id = n.id
LEFT JOIN LATERAL (
    SELECT max(j.finished_at) AS finished_at,
        bool_or(j.state NOT IN ('succeeded', 'failed', 'cancelled')
            OR EXISTS (SELECT FROM awo.leases l WHERE l.job_id = j.id)) AS open
    FROM awo.jobs j
    WHERE j.work_order_id = n.id
) j ON true
LEFT JOIN LATERAL (
    SELECT max(d.deleted_at) AS deleted_at FROM awo.deleted_orders d
    WHERE d.agent_work_order_id = n.id AND (n.generation IS NULL OR d.generation = n.generation)
) d ON true
