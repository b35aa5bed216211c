//! Postgres goes away while an order runs, and comes back: nothing is done twice, nothing is lost.

use std::{fs, time::Duration};

use nix::sys::signal::Signal;
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{
    database::Database,
    frozen::is_frozen,
    harness::{Harness, processes_of, until},
};

pub async fn place() -> (Database, PgPool) {
    let database = Database::start();
    // The test server answers before it writes; this one must keep what it has promised.
    let pool = PgPool::connect(&database.url).await.unwrap();
    sqlx::raw_sql("alter database postgres set synchronous_commit = on")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    let pool = PgPoolOptions::new().max_connections(4).connect(&database.url).await.unwrap();
    archon_awo::store::MIGRATOR.run(&pool).await.unwrap();
    (database, pool)
}

#[tokio::test]
async fn an_outage_of_the_database_shorter_than_the_step_costs_no_work() {
    let (mut database, pool) = place().await;
    let mut harness = Harness::new(pool);
    harness.hold("execute");
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    let [run, _, _, pid] = harness.agent_runs().last().unwrap().clone();

    database.stop();
    // Longer than the self-fence: the agent stands still.
    let pid: i32 = pid.parse().unwrap();
    until("the agent is frozen", || is_frozen(pid)).await;
    database.start_again();
    until("the agent goes on", || !is_frozen(pid)).await;
    assert!(!processes_of(&run).is_empty(), "the same run goes on");
    harness.let_go("execute");
    harness.until_status(&order, "completed").await;

    insta::assert_debug_snapshot!(harness.steps(&order).await, @r#"
    [
        "create-branch 1 ok",
        "planning 1 ok",
        "execute 1 ok",
        "prp-review 1 ok",
        "commit 1 ok",
        "create-pr 1 ok",
    ]
    "#);
    let counts: (i32, i32, i32, i64) =
        sqlx::query_as("select attempt, crash_count, interrupted_count, lease_epoch from awo.jobs")
            .fetch_one(&harness.pool)
            .await
            .unwrap();
    assert_eq!(counts, (1, 0, 0, 1), "attempt, crashes, interruptions, epoch");
    let executed = harness.agent_runs().iter().filter(|run| run[1] == "execute").count();
    assert_eq!(executed, 1);
    harness.assert_sound().await;
}

#[tokio::test]
async fn output_that_the_database_could_not_take_is_stored_when_it_is_back() {
    let (mut database, pool) = place().await;
    let mut harness = Harness::new(pool);
    harness.hold("execute");
    // More than all queues between the agent and the database hold.
    harness.tell_agent("megabytes", "30");
    harness.start_worker_with(&[("AWO_LEASE", "1m"), ("AWO_SELF_FENCE", "40s")]);
    let order = harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    let run = harness.agent_runs().last().unwrap()[0].clone();
    database.stop();
    harness.let_go("execute");
    until("the agent has ended", || processes_of(&run).is_empty()).await;
    // Longer than the agent's end waits for a consumer: that is 5 s.
    tokio::time::sleep(Duration::from_secs(7)).await;
    database.start_again();
    harness.until_status(&order, "completed").await;

    let spool = harness.path(&format!("work-orders/{order}/outputs/3-execute-1.ndjson"));
    let stored: i64 = sqlx::query_scalar(
        "select sum(length(data))::bigint from awo.log_chunks
         where stream = 'stdout' and step_name = 'execute'",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert_eq!(u64::try_from(stored).unwrap(), fs::metadata(spool).unwrap().len());
    let events: Vec<String> = sqlx::query_scalar(
        "select convert_from(data, 'UTF8')::jsonb ->> 'event' from awo.log_chunks
         where stream = 'event' and (step_name is null or step_name = 'execute') order by seq",
    )
    .fetch_all(&harness.pool)
    .await
    .unwrap();
    assert_eq!(
        events,
        [
            "workflow_started",
            "step_started",
            "agent_isolation",
            "step_completed",
            "workflow_completed"
        ]
    );
    harness.assert_sound().await;
}

#[tokio::test]
async fn a_worker_told_twice_to_stop_ends_although_the_database_is_away() {
    let (mut database, pool) = place().await;
    let mut harness = Harness::new(pool);
    harness.hold("execute");
    let worker = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    let run = harness.agent_runs().last().unwrap()[0].clone();
    database.stop();
    harness.signal(worker, Signal::SIGTERM);
    // Signals that are pending at once are one: the first must have been seen.
    harness.until_logged("taking no new work orders").await;
    harness.signal(worker, Signal::SIGTERM);
    assert_eq!(harness.ended(worker).await, Some(0));
    assert!(processes_of(&run).is_empty(), "processes outlived their worker");

    database.start_again();
    harness.let_go("execute");
    harness.start_worker();
    harness.until_status(&order, "completed").await;
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.len(), pulls.len()), (1, 1));
    harness.assert_sound().await;
}
