//! Cancelling: at once when queued, proven when running.

use std::time::{Duration, Instant};

use sqlx::PgPool;

use crate::{
    halt::Halt,
    harness::{Harness, processes_of},
};

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn cancelling_a_running_order_leaves_no_process_within_fifteen_seconds(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.hold("prp-review");
    harness.tell_agent("daemon", "");
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("prp-review").await;
    let run = harness.agent_runs().last().unwrap()[0].clone();
    assert!(!processes_of(&run).is_empty(), "the agent runs");

    let start = Instant::now();
    let answer: String = sqlx::query_scalar("select awo_cancel($1, 'not needed')")
        .bind(&order)
        .fetch_one(&harness.pool)
        .await
        .unwrap();
    assert_eq!(answer, "requested");
    harness.until_status(&order, "cancelled").await;
    assert!(processes_of(&run).is_empty(), "processes outlived the cancel");
    assert!(start.elapsed() < Duration::from_secs(15), "took {:?}", start.elapsed());

    let (class, message): (String, String) =
        sqlx::query_as("select error_class, error_message from agent_work_orders")
            .fetch_one(&harness.pool)
            .await
            .unwrap();
    assert_eq!((class.as_str(), message.as_str()), ("cancelled", "Cancelled: not needed"));
    let last = harness.steps(&order).await.pop();
    assert_eq!(last.as_deref(), Some("prp-review 1 failed cancelled"));
    for run in harness.agent_runs() {
        assert!(processes_of(&run[0]).is_empty(), "{run:?} left something behind");
    }
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_cancelled_order_can_be_requeued_and_goes_on_where_it_stopped(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.hold("execute");
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    sqlx::query("select awo_cancel($1)").bind(&order).execute(&harness.pool).await.unwrap();
    harness.until_status(&order, "cancelled").await;
    harness.let_go("execute");
    sqlx::query("select awo_requeue($1)").bind(&order).execute(&harness.pool).await.unwrap();
    harness.until("select status = 'completed' from agent_work_orders").await;
    insta::assert_debug_snapshot!(harness.steps(&order).await, @r#"
    [
        "create-branch 1 ok",
        "planning 1 ok",
        "execute 1 failed cancelled",
        "execute 2 ok",
        "prp-review 1 ok",
        "commit 1 ok",
        "create-pr 1 ok",
    ]
    "#);
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_running_job_cannot_be_requeued_by_an_update(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.hold("planning");
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("planning").await;
    let refusal = sqlx::query("update awo.jobs set state = 'queued'").execute(&harness.pool).await;
    let refusal = refusal.map(|_| ()).map_err(|error| error.to_string());
    assert!(refusal.as_ref().is_err_and(|text| text.contains("awo_cancel")), "{refusal:?}");
    harness.let_go("planning");
    harness.until_status(&order, "completed").await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_cancel_between_push_and_pull_request_leaves_what_a_requeue_completes(pool: PgPool) {
    let mut harness = Harness::new(pool);
    // The push is done; its step is not yet recorded as the request to cancel comes.
    let halt = Halt::at(&harness.pool, "commit", true).await;
    harness.start_worker();
    let order = harness.order("Write a file").await;
    halt.until_reached(&harness).await;
    assert_eq!(harness.deliveries().0.len(), 1, "pushed");
    sqlx::query("select awo_cancel($1)").bind(&order).execute(&harness.pool).await.unwrap();
    halt.lift(&harness.pool).await;
    harness.until_status(&order, "cancelled").await;
    assert_eq!(harness.deliveries().1, Vec::<String>::new(), "no pull request");
    sqlx::query("select awo_requeue($1)").bind(&order).execute(&harness.pool).await.unwrap();
    harness.until("select status = 'completed' from agent_work_orders").await;
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.len(), pulls.len()), (1, 1), "{branches:?} {pulls:?}");
    harness.assert_sound().await;
}
