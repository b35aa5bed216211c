//! Programs of different age on one database: during a rollout, and after one that was undone.

use nix::sys::signal::Signal;
use sqlx::{AssertSqlSafe, ConnectOptions, PgPool};

use crate::harness::{Harness, until};

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_worker_runs_orders_on_a_schema_that_is_newer_than_it(pool: PgPool) {
    let mut harness = Harness::new(pool);
    let newer = "insert into awo._sqlx_migrations
        (version, description, success, checksum, execution_time)
        values (9999, 'from the future', true, '', 1)";
    sqlx::query(newer).execute(&harness.pool).await.unwrap();
    harness.start_worker();
    harness.start_worker_with(&[("AWO_AUTO_MIGRATE", "false")]);
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "completed").await;
    harness.until_logged("the schema is newer than this program").await;
    harness.until("select count(*) = 2 from awo.workers").await;
    for arguments in [["migrate"].as_slice(), &["migrate", "--check"]] {
        let (code, printed) = harness.command(arguments);
        assert_eq!(code, Some(0), "{printed}");
        assert!(printed.contains("newer than this program (version 9999"), "{printed}");
    }
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_job_of_an_unknown_kind_waits_for_a_newer_worker(pool: PgPool) {
    let mut harness = Harness::new(pool);
    sqlx::query("insert into awo.jobs (kind, queue) values ('prune_artifacts', 'maintenance')")
        .execute(&harness.pool)
        .await
        .unwrap();
    harness.start_worker();
    harness.until("select count(*) = 1 from awo.attempts where outcome = 'interrupted'").await;
    let (state, attempt, wait): (String, i32, f64) = sqlx::query_as(
        "select state::text, attempt, extract(epoch from run_at - now())::double precision
         from awo.jobs",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert_eq!((state.as_str(), attempt), ("queued", 0), "nothing was spent");
    assert!(wait <= 5.0, "the first pause is short: {wait} s");
    harness.assert_sound().await;
}

/// Orders that are being executed by either program, in equal parts.
async fn two_each(harness: &Harness, old: &str, new: &str) {
    let each = format!(
        "select count(*) filter (where w.pid = {old}) = 2 and count(*) filter (where w.pid = {new}) = 2
         from awo.leases l join awo.workers w using (worker_id)"
    );
    let each: &'static str = Box::leak(each.into_boxed_str());
    harness.until(each).await;
}

#[sqlx::test(migrations = false)]
#[ignore = "needs the previous program: make upgrade-test builds it"]
async fn the_previous_program_and_this_one_run_side_by_side(pool: PgPool) {
    let this = std::path::PathBuf::from(env!("CARGO_BIN_EXE_archon-awo"));
    let previous = std::path::PathBuf::from(
        std::env::var("AWO_PREVIOUS_PROGRAM").expect("AWO_PREVIOUS_PROGRAM: make upgrade-test"),
    );
    let url = pool.connect_options().to_url_lossy().to_string();
    let made = archon_awo::process::blocking_command(&previous)
        .arg("migrate")
        .env("DATABASE_URL", url)
        .env("HOME", "/nonexistent")
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut harness = Harness::new(pool);
    harness.set("AWO_MAX_CONCURRENT", "2");
    let limit = format!("select awo_set_repository_limit('{}', 8)", harness.remote_url());
    sqlx::query(AssertSqlSafe(limit)).execute(&harness.pool).await.unwrap();
    let url = harness.remote_url();
    let by_hand = ["enqueue", "--repository-url", &url, "--request", "Write a file"];

    // The previous program is at work when this one comes and migrates.
    harness.hold("execute");
    harness.program.clone_from(&previous);
    let mut old = harness.start_worker();
    harness.until("select count(*) = 1 from awo.workers").await;
    harness.order("Write a file").await;
    let (code, printed) = harness.command(&by_hand);
    assert_eq!(code, Some(0), "{printed}");
    harness.until("select count(*) = 2 from awo.leases").await;
    harness.program.clone_from(&this);
    let mut new = harness.start_worker();
    harness.until("select count(*) = 2 from awo.workers").await;
    harness.order("Write a file").await;
    let (code, printed) = harness.command(&by_hand);
    assert_eq!(code, Some(0), "{printed}");
    two_each(&harness, &old.to_string(), &new.to_string()).await;
    // Renewed for longer than a lease lasts: both keep theirs.
    harness
        .until("select bool_and(heartbeat_at > claimed_at + interval '6 s') from awo.leases")
        .await;
    two_each(&harness, &old.to_string(), &new.to_string()).await;
    harness.let_go("execute");
    harness
        .until("select bool_and(status = 'completed') from agent_work_orders having count(*) = 4")
        .await;

    // Each dies in turn, and the other one ends its orders. The previous one also starts anew.
    for round in 0..2 {
        harness.hold("execute");
        for _ in 0..4 {
            harness.order("Write a file").await;
        }
        two_each(&harness, &old.to_string(), &new.to_string()).await;
        let runs = harness.agent_runs().len();
        let victim = if round == 0 { old } else { new };
        harness.signal(victim, Signal::SIGKILL);
        harness.ended(victim).await;
        harness.let_go("execute");
        harness.until("select bool_and(status = 'completed') from agent_work_orders").await;
        let crashed = "select count(*) >= 2 from awo.attempts where outcome = 'crashed'";
        harness.until(crashed).await;
        until("another run", || harness.agent_runs().len() > runs).await;
        if round == 0 {
            harness.program.clone_from(&previous);
            old = harness.start_worker();
            harness.until("select count(*) = 3 from awo.workers").await;
        } else {
            harness.program.clone_from(&this);
            new = harness.start_worker();
        }
    }
    // Both end in peace.
    for worker in [old, new] {
        harness.signal(worker, Signal::SIGTERM);
        assert_eq!(harness.ended(worker).await, Some(0), "{}", harness.logs());
    }
    let crashes: i64 =
        sqlx::query_scalar("select count(*) from awo.attempts where outcome = 'crashed'")
            .fetch_one(&harness.pool)
            .await
            .unwrap();
    assert_eq!(crashes, 4, "two orders of each");
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.len(), pulls.len()), (12, 12));
    harness.assert_sound().await;
}
