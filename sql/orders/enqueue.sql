SELECT public.awo_enqueue(
    repository_url => $1,
    user_request => $2,
    selected_commands => $3,
    github_issue_number => $4,
    priority => $5,
    -- A delay counts from the database's clock, not from the caller's.
    run_at => coalesce($6, now() + $7 * interval '1 second'),
    idempotency_key => $8,
    agent_work_order_id => $9,
    traceparent => $10,
    base_branch => $11,
    sandbox_type => $12
)
