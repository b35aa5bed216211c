//! An agent that has the worker's user closes the worker's folders: no order fails for that, what is ours is
//! opened again, and what is not is said.

use std::{fs, os::unix::fs::PermissionsExt};

use sqlx::PgPool;

use crate::{
    harness::Harness,
    telemetry::{address, get},
};

/// A user without any right: what is closed is closed to it.
const WORKER: u32 = 73_101;

fn set_mode(harness: &Harness, name: &str, mode: u32) {
    fs::set_permissions(harness.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

/// A place whose workers have a user without rights; nothing where the tests cannot do that.
fn without_rights(pool: PgPool) -> Option<Harness> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("only root can start a worker as another user");
        return None;
    }
    let mut harness = Harness::new(pool);
    for folder in ["repositories", "work-orders", "config"] {
        fs::create_dir(harness.path(folder)).unwrap();
    }
    harness.run_as(WORKER);
    Some(harness)
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn folders_that_an_agent_closed_cost_no_attempt(pool: PgPool) {
    let Some(mut harness) = without_rights(pool) else { return };
    harness.hold("planning");
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("planning").await;
    for name in [
        format!("work-orders/{order}/outputs"),
        format!("work-orders/{order}"),
        "work-orders".to_owned(),
        format!("repositories/.cache/trusted/{order}.git/objects"),
        format!("repositories/.cache/trusted/{order}.git/HEAD"),
        format!("repositories/.cache/trusted/{order}.git"),
        "repositories/.cache/trusted".to_owned(),
        format!("repositories/{order}"),
        "repositories/.cache".to_owned(),
        "repositories".to_owned(),
    ] {
        set_mode(&harness, &name, 0);
    }
    harness.let_go("planning");
    harness.until_status(&order, "completed").await;
    let (attempt, crashes): (i32, i32) =
        sqlx::query_as("select attempt, crash_count from awo.jobs")
            .fetch_one(&harness.pool)
            .await
            .unwrap();
    assert_eq!((attempt, crashes), (1, 0), "{:?}", harness.steps(&order).await);
    assert_eq!(
        harness.steps(&order).await.iter().filter(|step| step.starts_with("create-branch")).count(),
        1
    );
    harness.until_logged("folders of ours were closed").await;
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_volume_that_stays_closed_is_said_and_waited_for(pool: PgPool) {
    let Some(mut harness) = without_rights(pool) else { return };
    harness.start_worker();
    let address = address(&harness, "worker-0.log").await;
    let first = harness.order("Write a file").await;
    harness.until_status(&first, "completed").await;
    // As in the image: the volume is root's, and open to the worker's group.
    std::os::unix::fs::chown(harness.path("work-orders"), Some(0), None).unwrap();
    set_mode(&harness, "work-orders", 0o700);
    harness.until_logged("no orders are claimed").await;
    let words = "a volume is closed to the worker: /health says which\n";
    assert_eq!(get(&address, "/readyz").await, (503, words.to_owned()));
    let (_, health) = get(&address, "/health").await;
    assert!(health.contains("is closed to this user") && health.contains("user 0"), "{health}");
    let (code, printed) = harness.command(&["doctor"]);
    assert_ne!(code, Some(0));
    assert!(printed.contains("its owner, user 0, can open it"), "{printed}");
    let second = harness.order("Write a file").await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(harness.outcome(&second).await.0, "pending");
    set_mode(&harness, "work-orders", 0o770);
    harness.until_status(&second, "completed").await;
    assert_eq!(get(&address, "/readyz").await.0, 200);
    harness.assert_sound().await;
}
