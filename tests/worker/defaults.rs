//! What is promised with the times as they are by default: these tests take as long as the promises.

use std::time::{Duration, Instant};

use archon_awo::config::keys;
use nix::sys::signal::Signal;
use sqlx::PgPool;

use crate::harness::{Harness, until};

/// From now on workers have the default times, and each runs `slots` orders.
async fn by_default(harness: &mut Harness, slots: usize) {
    for key in [
        &keys::LEASE,
        &keys::HEARTBEAT,
        &keys::SELF_FENCE,
        &keys::RESCUE_GRACE,
        &keys::POLL_MIN,
        &keys::POLL_MAX,
        &keys::POLL_IDLE,
        &keys::DRAIN_GRACE,
    ] {
        harness.set(key.name(), key.default.unwrap());
    }
    harness.set("AWO_MAX_CONCURRENT", slots.to_string());
    sqlx::query("select awo_set_repository_limit($1, 32)")
        .bind(harness.remote_url())
        .execute(&harness.pool)
        .await
        .unwrap();
}

fn executing(harness: &Harness) -> usize {
    harness.agent_runs().iter().filter(|run| run[1] == "execute").count()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn orders_of_killed_workers_are_running_elsewhere_within_45_seconds(pool: PgPool) {
    let mut harness = Harness::new(pool);
    by_default(&mut harness, 2).await;
    harness.hold("execute");
    let victims: Vec<u32> = (0..5).map(|_| harness.start_worker()).collect();
    for _ in 0..10 {
        harness.order("Write a file").await;
    }
    until("ten execute", || executing(&harness) == 10).await;
    for spare in 0..2 {
        harness.start_worker_with(&[("AWO_MAX_CONCURRENT", "10")]);
        tokio::time::sleep(Duration::from_millis(700 * spare)).await;
    }
    sqlx::query("create table deaths (pid integer, at timestamptz)")
        .execute(&harness.pool)
        .await
        .unwrap();
    for victim in victims {
        // At different moments between two beats; right after one is the worst.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        harness.signal(victim, Signal::SIGKILL);
        sqlx::query("insert into deaths values ($1, clock_timestamp())")
            .bind(i32::try_from(victim).unwrap())
            .execute(&harness.pool)
            .await
            .unwrap();
        harness.ended(victim).await;
    }
    harness.until("select count(*) = 10 from awo.leases where epoch = 2").await;
    harness.let_go("execute");
    harness
        .until("select bool_and(status = 'completed') from agent_work_orders having count(*) = 10")
        .await;
    let seconds: Vec<f64> = sqlx::query_scalar(
        "select extract(epoch from again.claimed_at - d.at)::double precision
         from awo.attempts again
         join awo.attempts dead on dead.job_id = again.job_id and dead.epoch = 1
         join awo.workers w on w.worker_id = dead.worker_id
         join deaths d on d.pid = w.pid
         where again.epoch = 2 order by 1",
    )
    .fetch_all(&harness.pool)
    .await
    .unwrap();
    println!("seconds from SIGKILL to redispatch: {seconds:.1?}");
    assert_eq!(seconds.len(), 10);
    assert!(seconds.iter().all(|seconds| *seconds <= 45.0), "{seconds:?}");
    harness.assert_sound().await;
}

#[tokio::test]
async fn an_outage_of_a_minute_in_the_middle_of_ten_runs_costs_no_step() {
    let (mut database, pool) = crate::outage_postgres::place().await;
    let mut harness = Harness::new(pool);
    by_default(&mut harness, 5).await;
    harness.hold("execute");
    harness.start_worker();
    harness.start_worker();
    for _ in 0..10 {
        harness.order("Write a file").await;
    }
    until("ten execute", || executing(&harness) == 10).await;
    let began = Instant::now();
    database.stop();
    tokio::time::sleep(Duration::from_secs(30)).await;
    // Nothing keeps the agents any more but that they are frozen.
    harness.let_go("execute");
    tokio::time::sleep(Duration::from_mins(1).saturating_sub(began.elapsed())).await;
    database.start_again();
    harness
        .until("select bool_and(status = 'completed') from agent_work_orders having count(*) = 10")
        .await;
    let touched: i64 = sqlx::query_scalar(
        "select count(*) from awo.jobs
         where (attempt, crash_count, interrupted_count, lease_epoch) <> (1, 0, 0, 1)",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert_eq!(touched, 0, "orders that were started again");
    assert_eq!(executing(&harness), 10, "runs of the step");
    harness.assert_sound().await;
}
