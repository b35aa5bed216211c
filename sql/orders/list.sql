SELECT o.agent_work_order_id, o.repository_url, o.user_request, o.status, o.current_phase, o.git_branch_name,
    o.github_pull_request_url, o.error_class, o.error_message, o.created_at, o.started_at, o.finished_at,
    CASE WHEN w.reason IS NOT NULL THEN
        jsonb_strip_nulls(jsonb_build_object('reason', w.reason, 'since', w.since, 'until', w.until)) || w.facts
    END AS waiting_for
FROM (
    SELECT * FROM public.agent_work_orders
    WHERE $1::text IS NULL OR status = $1
    ORDER BY created_at DESC, agent_work_order_id
    LIMIT $2
) o
-- All that wait in one call: what they wait for is looked up once per queue and repository.
LEFT JOIN awo.waiting_for(ARRAY(
    SELECT p.awo_job_id FROM (
        SELECT awo_job_id, status FROM public.agent_work_orders
        WHERE $1::text IS NULL OR status = $1
        ORDER BY created_at DESC, agent_work_order_id
        LIMIT $2
    ) p WHERE p.status = 'pending')) w ON w.job_id = o.awo_job_id
ORDER BY o.created_at DESC, o.agent_work_order_id
