//! A rolling restart: every worker is replaced while orders run, and nobody pays for it.

use std::{collections::BTreeMap, time::Duration};

use nix::sys::signal::Signal;
use sqlx::PgPool;

use crate::harness::{Harness, until};

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn three_workers_are_replaced_and_no_order_loses_progress_or_an_attempt(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.set("AWO_MAX_CONCURRENT", "2");
    sqlx::query("select awo_set_repository_limit($1, 6)")
        .bind(harness.remote_url())
        .execute(&harness.pool)
        .await
        .unwrap();
    harness.hold("execute");
    let old: Vec<u32> = (0..3).map(|_| harness.start_worker()).collect();
    for _ in 0..6 {
        harness.order("Write a file").await;
    }
    let executed =
        |harness: &Harness| harness.agent_runs().iter().filter(|run| run[1] == "execute").count();
    until("six execute", || executed(&harness) == 6).await;
    let owners: i64 = sqlx::query_scalar("select count(distinct worker_id) from awo.leases")
        .fetch_one(&harness.pool)
        .await
        .unwrap();
    assert_eq!(owners, 3, "every worker has work to lose");

    for worker in old {
        harness.signal(worker, Signal::SIGTERM);
        assert_eq!(harness.ended(worker).await, Some(0));
        harness.start_worker();
        // The replacement is at work before the next one goes, as in a rolling update.
        harness.until("select count(*) = 6 from awo.leases").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    harness.let_go("execute");
    harness
        .until("select bool_and(status = 'completed') from agent_work_orders having count(*) = 6")
        .await;

    let spent: Vec<(i32, i32)> = sqlx::query_as(
        "select attempt, crash_count from awo.jobs where attempt <> 1 or crash_count <> 0",
    )
    .fetch_all(&harness.pool)
    .await
    .unwrap();
    assert_eq!(spent, [], "attempts and crashes that were spent");
    let interrupted: i32 = sqlx::query_scalar("select min(interrupted_count) from awo.jobs")
        .fetch_one(&harness.pool)
        .await
        .unwrap();
    assert!(interrupted > 0, "some order was not interrupted at all");
    // Whoever went on began at the step that was interrupted; what had ended was not repeated.
    let resumed: Vec<String> =
        sqlx::query_scalar("select distinct first_step from awo.attempts where epoch > 1")
            .fetch_all(&harness.pool)
            .await
            .unwrap();
    assert_eq!(resumed, ["execute"]);
    let mut runs: BTreeMap<String, usize> = BTreeMap::new();
    for run in harness.agent_runs() {
        *runs.entry(run[1].clone()).or_default() += 1;
    }
    assert_eq!((runs["planning"], runs["prp-review"]), (6, 6), "{runs:?}");
    assert!(runs["execute"] > 6, "{runs:?}");
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.len(), pulls.len()), (6, 6));
    harness.assert_sound().await;
}
