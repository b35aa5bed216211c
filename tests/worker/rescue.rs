//! Who is rescued, why, and on whose account; and who is not, although it looks dead.

use std::time::Duration;

use nix::sys::signal::Signal;
use sqlx::PgPool;

use crate::harness::Harness;

/// A lease of the harness with its grace, and the time between the two looks.
const PAST_RESCUE: Duration = Duration::from_secs(7);

/// Attempt, crashes and interruptions of the only job.
async fn budgets(pool: &PgPool) -> (i32, i32, i32) {
    let read = sqlx::query_as("select attempt, crash_count, interrupted_count from awo.jobs");
    read.fetch_one(pool).await.unwrap()
}

/// Waits until the agent has begun a step for the nth time.
async fn until_nth_run(harness: &Harness, step: &str, n: usize) {
    let runs = || harness.agent_runs().iter().filter(|run| run[1] == step).count();
    crate::harness::until("the next run of the agent", || runs() >= n).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_rescue_says_whose_worker_was_how_long_silent(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.hold("execute");
    let first = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    harness.signal(first, Signal::SIGKILL);
    harness.start_worker();
    harness.until("select count(*) = 2 from awo.attempts").await;
    harness.let_go("execute");
    harness.until_status(&order, "completed").await;

    let (was, silent, message, pid): (String, f64, String, i32) = sqlx::query_as(
        "select a.worker_was, a.silent_seconds, a.error_message, w.pid
         from awo.attempts a join awo.workers w using (worker_id) where a.outcome = 'crashed'",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert_eq!(was, "silent");
    assert!((4.0..30.0).contains(&silent), "{silent}");
    assert_eq!(u32::try_from(pid).unwrap(), first);
    assert!(message.contains(&format!("pid {first}), which was silent")), "{message}");
    let event: serde_json::Value = sqlx::query_scalar(
        "select convert_from(data, 'UTF8')::jsonb from awo.log_chunks
         where stream = 'event' and convert_from(data, 'UTF8') like '%workflow_rescued%'",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert_eq!(event["worker_pid"], first);
    assert_eq!((&event["worker_was"], &event["state"]), (&"silent".into(), &"queued".into()));
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn crashes_spend_their_own_budget_and_end_the_order(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.hold("execute");
    let order = harness.order("Write a file").await;
    sqlx::query("update awo.jobs set max_crashes = 2").execute(&harness.pool).await.unwrap();
    for death in 1..=2 {
        let worker = harness.start_worker();
        until_nth_run(&harness, "execute", death).await;
        harness.signal(worker, Signal::SIGKILL);
        harness.ended(worker).await;
    }
    harness.start_worker();
    harness.until("select status = 'failed' from agent_work_orders").await;
    assert_eq!(budgets(&harness.pool).await, (0, 2, 0), "attempt, crashes, interruptions");
    let (_, class, message, _) = harness.outcome(&order).await;
    assert_eq!(class.as_deref(), Some("lost_worker"));
    assert!(message.unwrap().starts_with("The worker died 2 times"));
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn interruptions_have_no_limit_and_spend_nothing(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.hold("execute");
    let order = harness.order("Write a file").await;
    sqlx::query("update awo.jobs set max_attempts = 1, max_crashes = 1")
        .execute(&harness.pool)
        .await
        .unwrap();
    for stop in 1..=3 {
        let worker = harness.start_worker();
        until_nth_run(&harness, "execute", stop).await;
        harness.signal(worker, Signal::SIGTERM);
        harness.ended(worker).await;
    }
    harness.let_go("execute");
    harness.start_worker();
    harness.until_status(&order, "completed").await;
    assert_eq!(budgets(&harness.pool).await, (1, 0, 3), "attempt, crashes, interruptions");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn failures_spend_attempts_only(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("stderr-execute", "write: No space left on device\n");
    harness.tell_agent("fail-execute", "1");
    let order = harness.order("Write a file").await;
    sqlx::query("update awo.jobs set max_attempts = 2, max_crashes = 1")
        .execute(&harness.pool)
        .await
        .unwrap();
    harness.start_worker();
    harness.until_status(&order, "failed").await;
    let (_, class, _, _) = harness.outcome(&order).await;
    assert_eq!(class.as_deref(), Some("disk"));
    assert_eq!(budgets(&harness.pool).await, (2, 0, 0), "attempt, crashes, interruptions");
    harness.assert_sound().await;
}

/// Two workers with two running orders each.
async fn four_running(harness: &mut Harness) -> Vec<u32> {
    sqlx::query("select awo_set_repository_limit($1, 8)")
        .bind(harness.remote_url())
        .execute(&harness.pool)
        .await
        .unwrap();
    harness.hold("execute");
    let workers = (0..2).map(|_| harness.start_worker_with(&[("AWO_MAX_CONCURRENT", "2")]));
    let workers = workers.collect();
    for _ in 0..4 {
        harness.order("Write a file").await;
    }
    until_nth_run(harness, "execute", 4).await;
    workers
}

/// Lets all orders end, and fails when one of them was taken from its worker.
async fn nobody_was_rescued(harness: &Harness) {
    harness.let_go("execute");
    harness
        .until("select bool_and(status = 'completed') from agent_work_orders having count(*) = 4")
        .await;
    let touched: Vec<String> = sqlx::query_scalar(
        "select concat_ws(' ', id, attempt, crash_count, interrupted_count, lease_epoch) from awo.jobs
         where (attempt, crash_count, interrupted_count, lease_epoch) <> (1, 0, 0, 1)",
    )
    .fetch_all(&harness.pool)
    .await
    .unwrap();
    assert_eq!(touched, [""; 0], "job, attempt, crashes, interruptions, epoch");
    let executed = harness.agent_runs().iter().filter(|run| run[1] == "execute").count();
    assert_eq!(executed, 4);
    harness.assert_sound().await;
}

#[tokio::test]
async fn an_outage_longer_than_the_lease_costs_no_live_run_its_lease() {
    let (mut database, pool) = crate::outage_postgres::place().await;
    let mut harness = Harness::new(pool);
    four_running(&mut harness).await;
    database.stop();
    tokio::time::sleep(PAST_RESCUE).await;
    database.start_again();
    // Every lease has long run out; whoever came first could take them all.
    tokio::time::sleep(PAST_RESCUE).await;
    nobody_was_rescued(&harness).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn workers_that_stood_still_together_do_not_rescue_each_other(pool: PgPool) {
    let mut harness = Harness::new(pool);
    let workers = four_running(&mut harness).await;
    for worker in &workers {
        harness.signal(*worker, Signal::SIGSTOP);
    }
    tokio::time::sleep(PAST_RESCUE).await;
    for worker in &workers {
        harness.signal(*worker, Signal::SIGCONT);
    }
    tokio::time::sleep(PAST_RESCUE).await;
    nobody_was_rescued(&harness).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_clock_that_jumps_ahead_costs_no_live_run_its_lease(pool: PgPool) {
    let mut harness = Harness::new(pool);
    four_running(&mut harness).await;
    for _ in 0..3 {
        // What a step of the server's clock looks like: every time is long ago.
        sqlx::query(
            "update awo.leases set heartbeat_at = heartbeat_at - interval '1 hour',
                 expires_at = expires_at - interval '1 hour'",
        )
        .execute(&harness.pool)
        .await
        .unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    nobody_was_rescued(&harness).await;
}
