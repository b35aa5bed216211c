//! Who is rescued, why, and on whose account; and who is not, although it looks dead.

use std::time::Duration;

use archon_awo::store::{Beat, Store, WorkerRecord, heartbeat};
use chrono::{DateTime, Utc};
use nix::sys::signal::Signal;
use sqlx::PgPool;
use uuid::Uuid;

use crate::harness::{Harness, LEASE};

/// From the end of a lease to the second look of a rescue: a heartbeat until it is seen, the time that a living
/// owner takes to renew, and what is added at random.
const UNTIL_RESCUE: Duration = Duration::from_millis(4500);

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

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_was_known_of_the_worker_is_told_apart(pool: PgPool) {
    let store = Store::new(pool.clone());
    let (lease, queues) = (Duration::from_millis(20), ["default".to_owned()]);
    let states = ["unknown", "silent", "draining", "stopped", "alive"];
    for state in states {
        let url = format!("https://github.com/acme/{state}");
        sqlx::query("select awo_enqueue($1, $2)")
            .bind(url)
            .bind(state)
            .execute(&pool)
            .await
            .unwrap();
        let worker_id = Uuid::new_v4();
        if state != "unknown" {
            let (hostname, queues) = ("host".to_owned(), queues.to_vec());
            let record = WorkerRecord {
                worker_id,
                hostname,
                pid: 7,
                queues,
                max_concurrent: 1,
                kinds: None,
            };
            store.register_worker(&record).await.unwrap();
        }
        store.claim(worker_id, &queues, 1, lease, Duration::ZERO).await.unwrap();
        match state {
            "draining" => store.drain_worker(worker_id).await.unwrap(),
            "stopped" => store.retire_worker(worker_id).await.unwrap(),
            _ => {}
        }
        tokio::time::sleep(lease * 2).await;
        if state == "alive" {
            // It beats on, without this lease.
            let mut connection = pool.acquire().await.unwrap();
            heartbeat(&mut *connection, worker_id, &[], lease).await.unwrap();
        }
    }
    let expired = store.expired_leases().await.unwrap();
    let rescued = store.rescue(&expired, Duration::from_millis(10), lease).await.unwrap();
    assert_eq!(rescued.len(), states.len());
    let noted: Vec<(String, String)> = sqlx::query_as(
        "select o.user_request, a.worker_was from awo.attempts a
         join agent_work_orders o on o.awo_job_id = a.job_id where a.outcome = 'crashed'",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(noted.len(), states.len());
    assert!(noted.iter().all(|(expected, was)| expected == was), "{noted:?}");
    // Seen once, renewed since: left alone.
    let worker = Uuid::new_v4();
    let claim = store.claim(worker, &queues, 1, lease, Duration::ZERO).await.unwrap();
    let fence = claim.into_jobs()[0].fence();
    tokio::time::sleep(lease * 2).await;
    let expired = store.expired_leases().await.unwrap();
    assert_eq!(expired.len(), 1);
    let mut connection = pool.acquire().await.unwrap();
    let beat = Beat { fence, step: "execute".to_owned(), silent: Duration::ZERO };
    heartbeat(&mut *connection, worker, &[beat], lease).await.unwrap();
    tokio::time::sleep(lease * 2).await;
    let rescued = store.rescue(&expired, Duration::from_millis(10), lease).await.unwrap();
    assert!(rescued.is_empty(), "{rescued:?}");
}

/// Two workers with two running orders each.
async fn four_running(harness: &mut Harness) -> Vec<u32> {
    sqlx::query("select awo_set_repository_limit($1, 8)")
        .bind(harness.remote_url())
        .execute(&harness.pool)
        .await
        .unwrap();
    harness.hold("execute");
    // An owner may take longer to renew than replicas wait for each other at random.
    let settings = [("AWO_MAX_CONCURRENT", "2"), ("AWO_HEARTBEAT", "1400ms")];
    let first = harness.start_worker_with(&settings);
    // Their beats do not fall together: each sees the other's leases some time before they are renewed.
    harness.until("select count(*) = 1 from awo.workers").await;
    let workers = vec![first, harness.start_worker_with(&settings)];
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

/// Waits until every lease ran out so long ago that whoever looks may take it.
async fn until_all_ran_out(end: DateTime<Utc>) {
    let wait = (end + UNTIL_RESCUE - Utc::now()).to_std().unwrap_or_default();
    tokio::time::sleep(wait).await;
}

/// When the last lease runs out that is not renewed from now on. Server and test share a clock.
async fn last_end(pool: &PgPool) -> DateTime<Utc> {
    let read = sqlx::query_scalar("select max(expires_at) from awo.leases");
    read.fetch_one(pool).await.unwrap()
}

/// Waits until all four leases were renewed over a time in which a rescue would have taken them.
async fn until_all_were_renewed(harness: &Harness) {
    let since: DateTime<Utc> =
        sqlx::query_scalar("select clock_timestamp()").fetch_one(&harness.pool).await.unwrap();
    let renewed = || async {
        sqlx::query_scalar::<_, bool>(
            "select count(*) = 4 and bool_and(heartbeat_at > $1) from awo.leases",
        )
        .bind(since + LEASE + UNTIL_RESCUE)
        .fetch_one(&harness.pool)
        .await
        .unwrap()
    };
    harness.eventually("every lease is renewed", renewed).await;
}

#[tokio::test]
async fn an_outage_longer_than_the_lease_costs_no_live_run_its_lease() {
    let (mut database, pool) = crate::outage_postgres::place().await;
    let mut harness = Harness::new(pool);
    four_running(&mut harness).await;
    let end = last_end(&harness.pool).await;
    database.stop();
    until_all_ran_out(end).await;
    database.start_again();
    // Every lease has long run out; whoever came first could take them all.
    until_all_were_renewed(&harness).await;
    nobody_was_rescued(&harness).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn workers_that_stood_still_together_do_not_rescue_each_other(pool: PgPool) {
    let mut harness = Harness::new(pool);
    let workers = four_running(&mut harness).await;
    for worker in &workers {
        harness.signal(*worker, Signal::SIGSTOP);
    }
    until_all_ran_out(last_end(&harness.pool).await).await;
    for worker in &workers {
        harness.signal(*worker, Signal::SIGCONT);
        // It has the time to look around before the next one is there.
        let since: DateTime<Utc> =
            sqlx::query_scalar("select clock_timestamp()").fetch_one(&harness.pool).await.unwrap();
        let beats = || async {
            sqlx::query_scalar::<_, bool>(
                "select heartbeat_at > $1 from awo.workers where pid = $2",
            )
            .bind(since)
            .bind(i32::try_from(*worker).unwrap())
            .fetch_one(&harness.pool)
            .await
            .unwrap()
        };
        harness.eventually("it beats again", beats).await;
    }
    until_all_were_renewed(&harness).await;
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
        // A rescue has had its first look, and perhaps its second.
        harness
            .until(
                "select count(*) = 4 and bool_and(expires_at > clock_timestamp()) from awo.leases",
            )
            .await;
    }
    until_all_were_renewed(&harness).await;
    nobody_was_rescued(&harness).await;
}
