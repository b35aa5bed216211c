//! Cancelling: at once when queued, proven when running.

use std::time::{Duration, Instant};

use sqlx::PgPool;

use crate::{
    halt::Halt,
    harness::{Harness, processes_of, until},
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

/// Runs in the agent: ignores every request to end, and has a child of the same kind in a session of
/// its own.
const STUBBORN: &str = r#"
[ "$AWO_STEP" = execute ] || return 0
trap '' INT TERM HUP
setsid sh -c 'trap "" INT TERM HUP; while :; do date +%s%N >> "$1"; sleep 0.05; done' _ "$TMPDIR/ticks" \
    </dev/null >/dev/null 2>&1 &
while :; do sleep 0.1; done
"#;

type Stages = (f64, f64, f64, bool);

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_cancel_of_a_stubborn_agent_is_proven_stage_by_stage(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("extra", STUBBORN);
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    let run = harness.agent_runs().last().unwrap()[0].clone();
    until("the daemon is up", || processes_of(&run).len() > 2).await;

    let (code, printed) = harness.command(&["cancel", &order, "--wait", "--json"]);
    assert_eq!(code, Some(0), "{printed}");
    assert_eq!(processes_of(&run), Vec::<u32>::new(), "proven, and yet something is left");
    let proof: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&proof["result"], &proof["status"]), (&"requested".into(), &"cancelled".into()));

    let (acknowledged, empty, released, in_order): Stages = sqlx::query_as(
        "select acknowledged_seconds, tree_empty_seconds, released_seconds,
             requested_at <= acknowledged_at and acknowledged_at <= tree_empty_at
                 and tree_empty_at <= released_at
         from awo.cancellations",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert!(in_order, "{proof}");
    assert!(acknowledged < 2.0, "heard after {acknowledged} s");
    // It took every signal of the plan, and no longer than is promised.
    assert!(empty > 8.0 && released <= 15.0, "empty after {empty} s, released after {released} s");
    let (_, shown) = harness.command(&["show", &order]);
    for stage in ["cancel asked", "cancel heard", "tree empty", "sandbox free"] {
        assert!(shown.contains(stage), "{stage} is not in {shown}");
    }
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn twelve_stubborn_agents_cancelled_at_once_are_gone_in_fifteen_seconds(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("extra", STUBBORN);
    harness.set("AWO_MAX_CONCURRENT", "12");
    sqlx::query("select awo_set_repository_limit($1, 12)")
        .bind(harness.remote_url())
        .execute(&harness.pool)
        .await
        .unwrap();
    harness.start_worker();
    for _ in 0..12 {
        harness.order("Write a file").await;
    }
    let executing = || harness.agent_runs().iter().filter(|run| run[1] == "execute").count();
    until("all execute", || executing() == 12).await;
    sqlx::query("select awo_cancel(agent_work_order_id) from agent_work_orders")
        .execute(&harness.pool)
        .await
        .unwrap();
    harness.until("select count(*) = 12 from agent_work_orders where status = 'cancelled'").await;
    for run in harness.agent_runs() {
        assert_eq!(processes_of(&run[0]), Vec::<u32>::new(), "{run:?} left something behind");
    }
    let (proven, slowest): (i64, f64) =
        sqlx::query_as("select count(released_at), max(released_seconds) from awo.cancellations")
            .fetch_one(&harness.pool)
            .await
            .unwrap();
    assert_eq!(proven, 12);
    assert!(slowest <= 15.0, "the slowest took {slowest} s");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_cancel_whose_worker_was_killed_is_not_called_proven(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.hold("execute");
    let first = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    harness.signal(first, nix::sys::signal::Signal::SIGKILL);
    harness.ended(first).await;
    sqlx::query("select awo_cancel($1)").bind(&order).execute(&harness.pool).await.unwrap();
    harness.start_worker();
    let (code, printed) = harness.command(&["cancel", &order, "--wait"]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("nobody saw its processes end"), "{printed}");
    let (_, shown) = harness.command(&["show", &order]);
    assert!(shown.contains("cancel asked") && !shown.contains("tree empty"), "{shown}");
    harness.assert_sound().await;
}
