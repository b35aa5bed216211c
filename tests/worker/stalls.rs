//! A cancel or a stop is heard whatever the worker waits for: git, a lock, the database.

use std::{
    fs::File,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use sqlx::PgPool;

use crate::{
    halt::Halt,
    harness::{Harness, processes_of, until},
    outage_postgres,
};

/// What is promised from a request to cancel to an empty tree.
const PROMISED: Duration = Duration::from_secs(15);

/// The last cancel has left no process behind in the promised time.
const PROVEN: &str = "select coalesce(tree_empty_seconds <= 15, false) from awo.cancellations order by requested_at desc limit 1";

/// Asks for a cancel and waits until the order is cancelled, in the promised time.
async fn cancel_in_time(harness: &Harness, order: &str) {
    let start = Instant::now();
    cancel(harness, order).await;
    harness.until_status(order, "cancelled").await;
    assert!(start.elapsed() < PROMISED, "took {:?}\n{}", start.elapsed(), harness.logs());
    for run in harness.agent_runs() {
        assert_eq!(processes_of(&run[0]), Vec::<u32>::new(), "{run:?} left something behind");
    }
}

async fn cancel(harness: &Harness, order: &str) {
    sqlx::query("select awo_cancel($1)").bind(order).execute(&harness.pool).await.unwrap();
}

/// The processes of git that work below a folder.
fn gits_below(folder: &Path) -> Vec<String> {
    let line = |entry: std::fs::DirEntry| {
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let place = std::fs::read_link(entry.path().join("cwd")).ok()?;
        (command.contains("git") && place.starts_with(folder)).then_some(command)
    };
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    entries.filter_map(line).collect()
}

/// A listener on loopback that takes every connection and never answers, or answers byte by byte with
/// the beginning of something that never ends. Answers its port and the number of its visitors.
fn silent_server(trickles: bool) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let visitors = Arc::new(AtomicUsize::new(0));
    let counter = visitors.clone();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for connection in listener.incoming().map_while(Result::ok) {
            counter.fetch_add(1, Ordering::Relaxed);
            if trickles {
                let mut connection = connection.try_clone().unwrap();
                thread::spawn(move || {
                    // A record of TLS that is said to be 16 KiB long.
                    let mut rest = [0x16, 3, 3, 0x40, 0].into_iter().chain(std::iter::repeat(0));
                    while connection.write_all(&[rest.next().unwrap()]).is_ok() {
                        thread::sleep(Duration::from_millis(100));
                    }
                });
            }
            kept.push(connection);
        }
    });
    (port, visitors)
}

fn order_lock(harness: &Harness, order: &str) -> PathBuf {
    harness.path("repositories").join(".cache/locks").join(order)
}

/// Holds a lock as another process would.
fn hold(path: &Path) -> File {
    let lock = File::options().create(true).truncate(false).write(true).open(path).unwrap();
    lock.lock().unwrap();
    lock
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_cancel_is_heard_while_the_remote_hangs(pool: PgPool) {
    for trickles in [false, true] {
        let mut harness = Harness::new(pool.clone());
        let host = format!("127.0.0.1:{}", silent_server(trickles).0);
        harness.set("AWO_ALLOWED_HOSTS", &host);
        harness.set("AWO_GITHUB_HOST", &host);
        let worker = harness.start_worker();
        let order: String = sqlx::query_scalar("select awo_enqueue($1, 'Write a file')")
            .bind(format!("https://{host}/acme/app"))
            .fetch_one(&harness.pool)
            .await
            .unwrap();
        let volume = harness.path("repositories");
        until("git asks the remote", || !gits_below(&volume).is_empty()).await;
        cancel_in_time(&harness, &order).await;
        until("no git is left", || gits_below(&volume).is_empty()).await;
        harness.signal(worker, Signal::SIGTERM);
        assert_eq!(harness.ended(worker).await, Some(0));
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_cancel_and_a_stop_are_heard_while_another_process_holds_the_sandbox(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.hold("prp-review");
    let worker = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("prp-review").await;
    let held = hold(&order_lock(&harness, &order));
    let reviewer = harness.agent_runs().last().unwrap()[0].clone();
    harness.let_go("prp-review");
    // What comes next needs the lock: to look at what the reviewer left, or to commit.
    until("the reviewer has ended", || processes_of(&reviewer).is_empty()).await;
    cancel_in_time(&harness, &order).await;

    // The next run waits for the same lock before its first step.
    for stop in [false, true] {
        sqlx::query("select awo_requeue($1)").bind(&order).execute(&harness.pool).await.unwrap();
        harness.until("select state = 'running' from awo.jobs").await;
        if stop {
            let start = Instant::now();
            harness.signal(worker, Signal::SIGTERM);
            assert_eq!(harness.ended(worker).await, Some(0));
            assert!(start.elapsed() < PROMISED, "took {:?}", start.elapsed());
        } else {
            cancel_in_time(&harness, &order).await;
        }
    }
    drop(held);
    harness.start_worker();
    harness.until_status(&order, "completed").await;
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_cancel_is_heard_while_a_statement_of_the_step_waits_for_a_lock(pool: PgPool) {
    for inside in [false, true] {
        let mut harness = Harness::new(pool.clone());
        let halt = Halt::at(&harness.pool, "planning", inside).await;
        let worker = harness.start_worker();
        let order = harness.order("Write a file").await;
        halt.until_reached(&harness).await;
        cancel_in_time(&harness, &order).await;
        halt.lift(&harness.pool).await;
        sqlx::raw_sql("drop trigger wait_at_halt_point on awo.steps; drop table halt_point")
            .execute(&harness.pool)
            .await
            .unwrap();
        sqlx::raw_sql("drop function wait_at_halt_point").execute(&harness.pool).await.unwrap();
        sqlx::query("select awo_requeue($1)").bind(&order).execute(&harness.pool).await.unwrap();
        harness.until_status(&order, "completed").await;
        harness.assert_sound().await;
        harness.signal(worker, Signal::SIGTERM);
        assert_eq!(harness.ended(worker).await, Some(0));
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_cancel_is_heard_while_what_the_agent_left_cannot_be_stored(pool: PgPool) {
    for table in ["public.agent_work_order_artifacts", "awo.log_chunks"] {
        let mut harness = Harness::new(pool.clone());
        harness.hold("execute");
        // More than all queues between the agent and the database hold.
        harness.tell_agent("megabytes", "30");
        let worker = harness.start_worker();
        let order = harness.order("Write a file").await;
        harness.until_agent_in("execute").await;
        let mut locked = harness.pool.begin().await.unwrap();
        let lock = format!("lock table {table} in access exclusive mode");
        sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut *locked).await.unwrap();
        if table == "awo.log_chunks" {
            let run = harness.agent_runs().last().unwrap()[0].clone();
            harness.let_go("execute");
            until("the agent has ended", || processes_of(&run).is_empty()).await;
            cancel(&harness, &order).await;
            // How an order ended is told in its log, which waits; the proof does not.
            harness.until(PROVEN).await;
            locked.rollback().await.unwrap();
            harness.until_status(&order, "cancelled").await;
        } else {
            cancel_in_time(&harness, &order).await;
            locked.rollback().await.unwrap();
        }
        harness.signal(worker, Signal::SIGTERM);
        assert_eq!(harness.ended(worker).await, Some(0));
        harness.assert_sound().await;
    }
}

#[tokio::test]
async fn a_stopped_worker_ends_although_the_database_is_away() {
    let (mut database, pool) = outage_postgres::place().await;
    let mut harness = Harness::new(pool);
    harness.hold("execute");
    let worker = harness.start_worker();
    harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    let run = harness.agent_runs().last().unwrap()[0].clone();
    database.stop();
    harness.signal(worker, Signal::SIGTERM);
    assert_eq!(harness.ended(worker).await, Some(0));
    assert!(processes_of(&run).is_empty(), "processes outlived their worker");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_upload_that_stalls_holds_up_neither_its_order_nor_a_stop(pool: PgPool) {
    let mut harness = Harness::new(pool);
    let (port, visitors) = silent_server(false);
    // Something that only an archive keeps.
    harness.tell_agent(
        "extra",
        "[ \"$AWO_STEP\" = execute ] && echo '*.built' > .gitignore && echo built > it.built\ntrue\n",
    );
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "completed").await;
    sqlx::query("update awo.jobs set finished_at = now() - interval '30 days'")
        .execute(&harness.pool)
        .await
        .unwrap();
    let mut gc = harness
        .product()
        .arg("gc")
        .env("AWO_ALLOW_LOCAL_REMOTES", "true")
        .env("AWO_ARCHIVE_URL", "s3://stalls/x")
        .env("AWO_ARCHIVE_ENDPOINT", format!("http://127.0.0.1:{port}"))
        .env("AWO_ARCHIVE_REGION", "us-east-1")
        .env("AWO_ARCHIVE_ACCESS_KEY_ID", "id")
        .env("AWO_ARCHIVE_SECRET_ACCESS_KEY", "a-key-of-this-test")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the upload stalls", || visitors.load(Ordering::Relaxed) > 0).await;
    let (code, said) = harness.command(&["prompt", &order, "Add another", "--wait"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(gc.try_wait().unwrap().is_none(), "the upload is not over");

    let start = Instant::now();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(gc.id().try_into().unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    tokio::task::spawn_blocking(move || gc.wait().unwrap()).await.unwrap();
    assert!(start.elapsed() < PROMISED, "took {:?}", start.elapsed());
    assert!(
        harness.path("repositories").join(&order).exists(),
        "nothing was archived, so it stays"
    );
    harness.assert_sound().await;
}
