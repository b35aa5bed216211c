//! SIGTERM: the order goes back at its step, and no attempt is spent.

use nix::sys::signal::Signal;
use sqlx::PgPool;

use crate::harness::{Harness, processes_of};

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_stopped_worker_gives_its_order_back_without_spending_an_attempt(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.hold("execute");
    let first = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    let run = harness.agent_runs().last().unwrap()[0].clone();
    harness.signal(first, Signal::SIGTERM);
    assert_eq!(harness.ended(first).await, Some(0));
    assert!(processes_of(&run).is_empty(), "processes outlived their worker");

    let (state, attempt, crashes, interruptions): (String, i32, i32, i32) =
        sqlx::query_as("select state::text, attempt, crash_count, interrupted_count from awo.jobs")
            .fetch_one(&harness.pool)
            .await
            .unwrap();
    assert_eq!((state.as_str(), attempt, crashes, interruptions), ("queued", 0, 0, 1));

    harness.let_go("execute");
    harness.start_worker();
    harness.until_status(&order, "completed").await;
    insta::assert_debug_snapshot!(harness.steps(&order).await, @r#"
    [
        "create-branch 1 ok",
        "planning 1 ok",
        "execute 1 failed",
        "execute 2 ok",
        "prp-review 1 ok",
        "commit 1 ok",
        "create-pr 1 ok",
    ]
    "#);
    let outcomes: Vec<String> =
        sqlx::query_scalar("select outcome || ' ' || first_step from awo.attempts order by epoch")
            .fetch_all(&harness.pool)
            .await
            .unwrap();
    assert_eq!(outcomes, ["interrupted create-branch", "succeeded execute"]);
    harness.assert_sound().await;
}
