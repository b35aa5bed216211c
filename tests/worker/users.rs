//! A user for each run of an agent, and what becomes of what it had: by workers that are root, and by one
//! that has four rights.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::PgPool;

use crate::harness::{Harness, processes_of, until};

/// Users that nobody else is.
const USERS: &str = "73000-73009";
const WORKER: u32 = 73_100;

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("only root can start agents as other users");
    }
    root
}

fn with_users(pool: PgPool) -> Harness {
    let mut harness = Harness::new(pool);
    harness.set("AWO_AGENT_USERS", USERS);
    harness
}

fn user_of(pid: &str) -> u32 {
    fs::metadata(format!("/proc/{pid}")).unwrap().uid()
}

/// The owners of all files in a folder.
fn owners(folder: &Path) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let facts = entry.metadata().unwrap();
            found.insert(facts.uid());
            if facts.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found
}

/// What an agent leaves that its worker has to read and to write again.
const CLOSING: &str = r#"
if [ "$AWO_STEP" = execute ]; then
    mkdir -p closed "$HOME/.state" && echo x > closed/file && ln -f closed/file closed/other
    echo x > "$HOME/.state/file" && chmod 000 "$HOME/.state/file" "$HOME/.state" && chmod 700 closed
fi
"#;

async fn two_orders_side_by_side(mut harness: Harness, worker: u32) {
    harness.tell_agent("extra", CLOSING);
    harness.hold("execute");
    harness.start_worker();
    let orders = [harness.order("Write a file").await, harness.order("Write a file").await];
    until("both agents run", || {
        harness.agent_runs().iter().filter(|run| run[1] == "execute").count() == 2
    })
    .await;
    let runs = harness.agent_runs();
    let users: BTreeSet<u32> =
        runs.iter().filter(|run| run[1] == "execute").map(|run| user_of(&run[3])).collect();
    assert_eq!(users.len(), 2, "two runs at once have one user: {users:?}");
    assert!(users.iter().all(|user| (73_000..=73_009).contains(user)), "{users:?}");
    for order in &orders {
        let root = harness.path("repositories").join(order);
        let facts = fs::metadata(&root).unwrap();
        assert_eq!((facts.uid(), facts.mode() & 0o7777), (worker, 0o750));
        assert!(users.contains(&facts.gid()), "{facts:?}");
    }
    harness.let_go("execute");
    for order in &orders {
        harness.until_status(order, "completed").await;
        let root = harness.path("repositories").join(order);
        assert_eq!(owners(&root), BTreeSet::from([worker]), "{order}");
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o700);
    }
    let (branches, _) = harness.deliveries();
    assert_eq!(branches.len(), 2);
    for branch in branches {
        let files = harness.git(&["-C", "remote.git", "ls-tree", "-r", "--name-only", &branch]);
        assert!(files.contains("closed/file") && files.contains("closed/other"), "{files}");
    }
    let notes = harness.path("repositories/.cache/agent-users");
    let written = fs::read_dir(notes).unwrap().map(|note| note.unwrap().metadata().unwrap().len());
    assert_eq!(written.sum::<u64>(), 0, "a user has something yet");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn two_runs_at_once_have_two_users_and_their_worker_gets_everything_back(pool: PgPool) {
    if !is_root() {
        return;
    }
    let harness = with_users(pool);
    harness.open_to_users();
    two_orders_side_by_side(harness, 0).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_worker_with_four_rights_does_it_too(pool: PgPool) {
    if !is_root() {
        return;
    }
    let mut harness = with_users(pool);
    harness.run_with_rights(WORKER);
    harness.set("AWO_ISOLATION", "required");
    two_orders_side_by_side(harness, WORKER).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_a_run_had_whose_worker_and_shim_were_killed_comes_back(pool: PgPool) {
    if !is_root() {
        return;
    }
    let mut harness = with_users(pool);
    // So that the shim's end ends nothing.
    harness.set("AWO_FREEZER", "signal");
    harness.run_with_rights(WORKER);
    harness.tell_agent("extra", CLOSING);
    harness.hold("execute");
    let worker = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    let run = harness.agent_runs().pop().unwrap();
    let agent: i32 = run[3].parse().unwrap();
    let user = user_of(&run[3]);
    let status = fs::read_to_string(format!("/proc/{agent}/status")).unwrap();
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    let shim: i32 = shim.trim().parse().unwrap();
    // A shim that hears of its worker's end would end the agent first.
    kill(Pid::from_raw(shim), Signal::SIGSTOP).unwrap();
    harness.signal(worker, Signal::SIGKILL);
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    harness.ended(worker).await;
    assert_eq!(user_of(&run[3]), user, "the agent outlives both");
    harness.let_go("execute");
    harness.start_worker();
    harness.until_status(&order, "completed").await;
    assert!(!Path::new(&format!("/proc/{agent}")).exists() || user_of(&run[3]) != user);
    assert_eq!(processes_of(&run[0]), Vec::<u32>::new());
    let root = harness.path("repositories").join(&order);
    assert_eq!(owners(&root), BTreeSet::from([WORKER]));
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn with_no_user_left_a_run_says_so(pool: PgPool) {
    if !is_root() {
        return;
    }
    let mut harness = Harness::new(pool);
    harness.set("AWO_AGENT_USERS", "73020-73020");
    harness.open_to_users();
    harness.hold("execute");
    harness.start_worker();
    let one = harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    let other = harness.order("Write a file").await;
    harness
        .until("select count(*) = 1 from agent_work_order_steps where not success and error_message like '%all users of AWO_AGENT_USERS (73020-73020) are taken%'")
        .await;
    harness.let_go("execute");
    harness.until_status(&one, "completed").await;
    harness.until_status(&other, "completed").await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_worker_that_may_not_change_users_does_not_start_with_them(pool: PgPool) {
    if !is_root() {
        return;
    }
    let mut harness = with_users(pool);
    harness.run_as(WORKER);
    let worker = harness.start_worker();
    assert_ne!(harness.ended(worker).await, Some(0));
    let logs = harness.logs();
    assert!(
        logs.contains("AWO_AGENT_USERS is 73000-73009") && logs.contains("CAP_SETUID"),
        "{logs}"
    );
}
