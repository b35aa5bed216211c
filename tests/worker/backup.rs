//! A backup in the middle of an order, everything lost, and the order goes on from the backup.

use std::{fs, path::PathBuf, process::Output};

use nix::sys::signal::Signal;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, PgPool};

use crate::harness::{Harness, until};

/// Runs a script of `ops/` as an administrator of a bare host does.
fn script(harness: &Harness, name: &str, arguments: &[&str]) -> Output {
    // Without the parameters of the driver, which Postgres's own programs do not know.
    let url = harness.pool.connect_options().to_url_lossy().to_string();
    let url = url.split('?').next().unwrap();
    archon_awo::process::blocking_command(format!("{}/ops/{name}", env!("CARGO_MANIFEST_DIR")))
        .args(arguments)
        .env("PATH", std::env::var("PATH").unwrap())
        .env("HOME", harness.folder())
        .env("AWO_PG_BIN", std::env::var("AWO_PG_BIN").unwrap_or_default())
        .env("DATABASE_URL", url)
        .env("AWO_REPOSITORY_DIR", harness.path("repositories"))
        .env("AWO_WORK_ORDER_DIR", harness.path("work-orders"))
        .env("AWO_CONFIG_DIR", harness.path("config"))
        .output()
        .unwrap()
}

fn ok(output: &Output) -> String {
    let said = String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into();
    assert!(output.status.success(), "{said}");
    said
}

fn refused(output: &Output, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(words), "{said}");
}

/// The one backup in a folder.
fn backup_in(folder: PathBuf) -> String {
    let mut found = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let path = found.next().unwrap();
    assert!(found.next().is_none());
    path.to_str().unwrap().to_owned()
}

/// Drops the database and makes an empty one of its name.
async fn lose_the_database(harness: &mut Harness) {
    let options = (*harness.pool.connect_options()).clone();
    let name = options.get_database().unwrap().to_owned();
    harness.pool.close().await;
    let mut server =
        PgConnection::connect_with(&options.clone().database("postgres")).await.unwrap();
    for statement in
        [format!("drop database \"{name}\" with (force)"), format!("create database \"{name}\"")]
    {
        server.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    server.close().await.unwrap();
    harness.pool = PgPool::connect_with(options).await.unwrap();
}

/// An order whose planning has ended and whose agent works, backed up; its worker goes on.
async fn backed_up(harness: &mut Harness, arguments: &[&str]) -> (u32, String, String) {
    fs::create_dir_all(harness.path("config")).unwrap();
    fs::write(harness.path("config/agent-settings.yaml"), "awo_review_rounds: 1\n").unwrap();
    harness.hold("execute");
    let worker = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    let checkout = harness.path("repositories").join(&order);
    fs::write(checkout.join("beside-the-checkout"), "").unwrap();
    let into = harness.path("backups");
    let into = into.to_str().unwrap();
    ok(&script(harness, "backup.sh", &[arguments, &["--into", into]].concat()));
    (worker, order, backup_in(harness.path("backups")))
}

/// A worker goes on with the order, under an epoch that nobody ever had.
async fn goes_on(harness: &mut Harness) {
    harness.start_worker();
    harness.until("select count(*) = 1 from awo.leases where epoch > 1700000000").await;
    until("a second run of execute", || {
        harness.agent_runs().iter().filter(|run| run[1] == "execute").count() == 2
    })
    .await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_interrupted_order_goes_on_after_everything_was_lost(pool: PgPool) {
    let mut harness = Harness::new(pool);
    let (former, order, backup) = backed_up(&mut harness, &[]).await;
    // A former owner that will wake up when another one is at work.
    harness.signal(former, Signal::SIGSTOP);
    lose_the_database(&mut harness).await;
    for folder in ["repositories", "work-orders", "config"] {
        fs::remove_dir_all(harness.path(folder)).unwrap();
    }

    let said = ok(&script(&harness, "restore.sh", &[&backup]));
    assert!(said.contains(&order) && said.contains("running"), "what goes on is named: {said}");
    assert!(harness.path("config/agent-settings.yaml").exists());
    let sandbox = harness.path("repositories").join(&order);
    assert!(sandbox.join("beside-the-checkout").exists());
    // Neither is written over by mistake.
    refused(
        &script(&harness, "restore.sh", &[&backup]),
        "the database holds archon-awo's tables already",
    );

    goes_on(&mut harness).await;
    harness.signal(former, Signal::SIGCONT);
    harness.until_logged("lost").await;
    harness.let_go("execute");
    harness.until_status(&order, "completed").await;
    let planned = harness.agent_runs().iter().filter(|run| run[1] == "planning").count();
    assert_eq!(planned, 1, "what had ended was not repeated");
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.len(), pulls.len()), (1, 1), "{branches:?} {pulls:?}");
    let spent: (i32, i32, i32) =
        sqlx::query_as("select attempt, crash_count, interrupted_count from awo.jobs")
            .fetch_one(&harness.pool)
            .await
            .unwrap();
    assert_eq!(spent, (1, 0, 1));
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn without_its_sandbox_an_order_gets_a_new_one(pool: PgPool) {
    let mut harness = Harness::new(pool);
    let (former, order, backup) = backed_up(&mut harness, &["--without-sandboxes"]).await;
    refused(
        &script(&harness, "restore.sh", &["--replace", &backup]),
        "1 workers are alive: stop them",
    );
    harness.signal(former, Signal::SIGKILL);
    harness.ended(former).await;
    fs::remove_dir_all(harness.path("repositories")).unwrap();
    // As half a minute later.
    sqlx::query("update awo.workers set heartbeat_at = now() - interval '1 minute'")
        .execute(&harness.pool)
        .await
        .unwrap();
    let options = (*harness.pool.connect_options()).clone();
    harness.pool.close().await;
    ok(&script(&harness, "restore.sh", &["--replace", &backup]));
    harness.pool = PgPool::connect_with(options).await.unwrap();
    let work_orders = fs::read_dir(harness.path("work-orders")).unwrap();
    let aside = work_orders.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(aside.filter(|name| name.starts_with(".before-restore-")).count(), 1);

    goes_on(&mut harness).await;
    harness.let_go("execute");
    harness.until_status(&order, "completed").await;
    let planned = harness.agent_runs().iter().filter(|run| run[1] == "planning").count();
    assert_eq!(planned, 1, "its plan is in the database");
    let sandbox = harness.path("repositories").join(&order);
    assert!(!sandbox.join("beside-the-checkout").exists(), "this is another sandbox");
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.len(), pulls.len()), (1, 1), "{branches:?} {pulls:?}");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_backup_that_is_damaged_or_not_complete_is_refused(pool: PgPool) {
    let harness = Harness::new(pool);
    let into = harness.path("backups");
    ok(&script(&harness, "backup.sh", &["--into", into.to_str().unwrap()]));
    let backup = backup_in(into);
    let mode = fs::metadata(&backup).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o077, 0);
    refused(&script(&harness, "restore.sh", &[&backup]), "holds archon-awo's tables already");
    fs::write(format!("{backup}/work-orders.tar.gz"), "torn").unwrap();
    refused(&script(&harness, "restore.sh", &[&backup]), "is damaged");
    fs::remove_file(format!("{backup}/SHA256SUMS")).unwrap();
    refused(&script(&harness, "restore.sh", &[&backup]), "not a complete backup");
    refused(&script(&harness, "restore.sh", &[]), "ops/restore.sh [--compose]");
}
