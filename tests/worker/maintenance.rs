//! Schedules and the product's own jobs, run by real workers.

use sqlx::PgPool;

use crate::harness::Harness;

/// A job of the product itself, and its end.
async fn run_kind(harness: &Harness, kind: &str) {
    let job: i64 = sqlx::query_scalar(
        "insert into awo.jobs (kind, queue) values ($1, 'maintenance') returning id",
    )
    .bind(kind)
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    let ended = "select state::text from awo.jobs where id = $1";
    let start = std::time::Instant::now();
    loop {
        let state: Option<String> =
            sqlx::query_scalar(ended).bind(job).fetch_optional(&harness.pool).await.unwrap();
        match state.as_deref() {
            Some("succeeded") => return,
            Some("queued" | "running") if start.elapsed().as_secs() < 60 => {}
            other => panic!("{kind} is {other:?}\n{}", harness.logs()),
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn three_workers_fire_an_every_second_schedule_once_a_second(pool: PgPool) {
    let mut harness = Harness::new(pool);
    for _ in 0..3 {
        harness.start_worker();
    }
    sqlx::query(
        "insert into awo.schedules (name, expression, kind, queue, missed_fires)
         values ('tick', '* * * * * *', 'heartbeat_report', 'maintenance', 'catch_up')",
    )
    .execute(&harness.pool)
    .await
    .unwrap();
    harness.until("select count(*) >= 6 from awo.cron_fires").await;
    sqlx::query("update awo.schedules set paused_at = now()").execute(&harness.pool).await.unwrap();
    let (fires, jobs, seconds): (i64, i64, i64) = sqlx::query_as(
        "select count(*), count(distinct job_id),
             extract(epoch from max(fire_at) - min(fire_at))::bigint + 1 from awo.cron_fires",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert_eq!((fires, jobs), (seconds, seconds), "one fire and one job for every second");
    let made: i64 =
        sqlx::query_scalar("select count(*) from awo.jobs where kind = 'heartbeat_report'")
            .fetch_one(&harness.pool)
            .await
            .unwrap();
    assert_eq!(made, seconds);
    harness.until("select bool_and(state = 'succeeded') from awo.jobs").await;
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_order_by_schedule_is_worked_on_like_any_other(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.start_worker();
    sqlx::query(
        "insert into awo.schedules (name, expression, payload, skip_while_open)
         values ('write', '* * * * * *', jsonb_build_object('repository_url', $1::text,
             'user_request', 'Write a file', 'selected_commands', '[\"create-branch\"]'::jsonb), true)",
    )
    .bind(harness.remote_url())
    .execute(&harness.pool)
    .await
    .unwrap();
    harness.until("select count(*) > 0 from agent_work_orders where status = 'completed'").await;
    sqlx::query("delete from awo.schedules").execute(&harness.pool).await.unwrap();
    harness.until("select bool_and(status = 'completed') from agent_work_orders").await;
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn each_kind_does_its_work(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.start_worker_with(&[("AWO_HISTORY_DAYS", "7"), ("AWO_LOG_DAYS", "3")]);
    for statement in [
        "insert into awo.jobs (kind, queue) select 'other', 'elsewhere' from generate_series(1, 2300)",
        "update awo.jobs set state = 'cancelled' where kind = 'other' and id % 100 <> 0",
        "update awo.jobs set finished_at = now() - interval '8 days' where kind = 'other' and state = 'cancelled'",
        "select awo.ensure_log_partitions(current_date - 9, current_date - 5)",
        "insert into awo.workers (worker_id, hostname, pid, version, queues, max_concurrent, heartbeat_at)
         values (gen_random_uuid(), 'gone', 1, '1', '{}', 1, now() - interval '9 days'),
                (gen_random_uuid(), 'silent', 1, '1', '{}', 1, now() - interval '5 minutes')",
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())).execute(&harness.pool).await.unwrap();
    }
    run_kind(&harness, "retention").await;
    let (left, live): (i64, i64) = sqlx::query_as(
        "select count(*), count(*) filter (where state = 'queued') from awo.jobs where kind = 'other'",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert_eq!((left, live), (23, 23), "what waits is never deleted");
    let days: i64 = sqlx::query_scalar(
        "select count(*) from pg_inherits where inhparent = 'awo.log_chunks'::regclass",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert_eq!(days, 8 + 1, "from today to a week ahead, and the default");

    run_kind(&harness, "heartbeat_report").await;
    let hosts: Vec<String> =
        sqlx::query_scalar("select hostname from awo.workers where hostname in ('gone', 'silent')")
            .fetch_all(&harness.pool)
            .await
            .unwrap();
    assert_eq!(hosts, ["silent"]);
    harness.until_logged("a worker is silent and has not said farewell").await;

    let staging = harness.path("repositories/.cache/mirrors/0123/staging.git/objects");
    std::fs::create_dir_all(&staging).unwrap();
    run_kind(&harness, "repository_cache_maintenance").await;
    assert!(!staging.exists());

    run_kind(&harness, "rescue_check").await;
    sqlx::query("update awo.jobs set run_at = now() - interval '1 hour' where kind = 'other'")
        .execute(&harness.pool)
        .await
        .unwrap();
    run_kind(&harness, "rescue_check").await;
    harness.until_logged("stuck: not claimed").await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_worker_takes_sandboxes_of_ended_orders_away_and_leaves_the_running_one(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness
        .start_worker_with(&[("AWO_RETENTION_COMPLETED", "10ms"), ("AWO_RETENTION_FAILED", "off")]);
    let done = harness.order("Write a file").await;
    harness.until_status(&done, "completed").await;
    harness.tell_agent("fail-execute", "3");
    let failed = harness.order("Fail at it").await;
    harness.until_status(&failed, "failed").await;
    std::fs::remove_file(harness.path("agent/fail-execute")).unwrap();
    harness.hold("execute");
    let running = harness.order("Write another file").await;
    harness.until_agent_in("execute").await;

    run_kind(&harness, "sandbox_retention").await;
    let there = |order: &str| harness.path("repositories").join(order).exists();
    assert!(!there(&done) && there(&failed) && there(&running));
    assert!(harness.path(&format!("work-orders/{done}/prompts")).exists(), "history stays");
    harness.let_go("execute");
    harness.until_status(&running, "completed").await;
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_job_of_the_product_s_own_ends_when_its_lease_is_taken(pool: PgPool) {
    let mut harness = Harness::new(pool);
    for statement in [
        "insert into awo.jobs (kind, queue) select 'other', 'elsewhere' from generate_series(1, 9000)",
        "update awo.jobs set state = 'cancelled', finished_at = now()",
        "update awo.jobs set finished_at = now() - interval '1 year'",
        "insert into awo.jobs (kind, queue) values ('retention', 'maintenance')",
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement.to_owned()))
            .execute(&harness.pool)
            .await
            .unwrap();
    }
    harness.start_worker();
    harness.until("select count(*) = 1 from awo.leases").await;
    // As a rescue would: the lease goes, and the job waits for another owner.
    sqlx::query(
        "with gone as (delete from awo.leases returning job_id),
         closed as (update awo.attempts a set ended_at = now(), outcome = 'crashed' from gone
                    where a.job_id = gone.job_id)
         update awo.jobs j set state = 'queued', run_at = now() + interval '1 hour' from gone
         where j.id = gone.job_id",
    )
    .execute(&harness.pool)
    .await
    .unwrap();
    harness.until_logged("lost").await;
    let (state, epoch): (String, i64) =
        sqlx::query_as("select state::text, lease_epoch from awo.jobs where kind = 'retention'")
            .fetch_one(&harness.pool)
            .await
            .unwrap();
    assert_eq!((state.as_str(), epoch), ("queued", 1), "a stale end changes nothing");
    harness.assert_sound().await;
}
