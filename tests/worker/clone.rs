//! A remote that does not answer holds up its own order and nothing else.

use nix::{sys::stat::Mode, unistd::mkfifo};
use sqlx::PgPool;

use crate::harness::Harness;

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_clone_that_hangs_delays_no_heartbeat_and_no_other_order_and_can_be_cancelled(
    pool: PgPool,
) {
    let mut harness = Harness::new(pool);
    // Who reads a pipe that nobody writes waits for ever: git serves this repository like that.
    harness.git(&["init", "--quiet", "--bare", "--initial-branch=main", "hanging.git"]);
    mkfifo(&harness.path("hanging.git/packed-refs"), Mode::S_IRWXU).unwrap();
    harness.start_worker();
    let url = format!("file://{}", harness.path("hanging.git").display());
    let hanging: String = sqlx::query_scalar("select awo_enqueue($1, 'Wait')")
        .bind(url)
        .fetch_one(&harness.pool)
        .await
        .unwrap();
    harness.until("select count(*) = 1 from awo.steps where step_name = 'create-branch'").await;

    let other = harness.order("Write a file").await;
    harness.until_status(&other, "completed").await;
    // It is still in its clone, and its lease has been renewed all the while.
    harness
        .until(
            "select count(*) = 1 from awo.leases
             where heartbeat_at > claimed_at + interval '1500 milliseconds'
               and progress ->> 'step' = 'create-branch' and expires_at > now()",
        )
        .await;

    sqlx::query("select awo_cancel($1)").bind(&hanging).execute(&harness.pool).await.unwrap();
    harness.until_status(&hanging, "cancelled").await;
    let waiting = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|entry| {
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(harness.path("hanging.git").to_str().unwrap())
    });
    assert!(!waiting, "a git process was left behind");
    harness.assert_sound().await;
}
