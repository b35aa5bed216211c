//! Worker and shim are killed together, as the kernel does when memory is short: nobody is left to end
//! the agent but the kernel, which ends what is traced, and the watchman of cgroups; else the next worker.

use std::fs;

use archon_awo::{agent::find_freezer, config::Freezer};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::PgPool;

use crate::harness::{Harness, processes_of, until};

fn role_of(pid: u32) -> Vec<u8> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|b| *b == 0).nth(1).unwrap_or_default().to_owned()
}

fn is_shim(pid: u32) -> bool {
    role_of(pid) == b"shim"
}

/// The process that outlives a worker.
fn watchman_of(worker: u32) -> Option<Pid> {
    // Each thread has children of its own.
    let threads = fs::read_dir(format!("/proc/{worker}/task")).unwrap().flatten();
    let children = threads.filter_map(|one| fs::read_to_string(one.path().join("children")).ok());
    let pids: Vec<u32> = children
        .flat_map(|line| line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|pid| pid.parse().ok())
        .collect();
    let found = pids.into_iter().find(|pid| role_of(*pid) == b"watchman");
    found.map(|pid| Pid::from_raw(pid.try_into().unwrap()))
}

/// An order whose agent works, and its worker and shim killed together, as is who outlives them unless he is
/// `spared`; answers the run.
async fn bereave(harness: &mut Harness, spared: bool) -> (String, String) {
    harness.hold("execute");
    let worker = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    let run = harness.agent_runs().last().unwrap()[0].clone();
    let shim = processes_of(&run).into_iter().find(|pid| is_shim(*pid)).unwrap();
    let shim = Pid::from_raw(shim.try_into().unwrap());
    let watchman = watchman_of(worker);
    let by_cgroup = harness.settings.contains(&("AWO_FREEZER".to_owned(), "cgroup".to_owned()));
    assert_eq!(watchman.is_some(), by_cgroup);
    if let Some(watchman) = watchman.filter(|_| !spared) {
        kill(watchman, Signal::SIGKILL).unwrap();
    }
    // Stopped first, or it would end its agent as the worker dies.
    kill(shim, Signal::SIGSTOP).unwrap();
    harness.signal(worker, Signal::SIGKILL);
    harness.ended(worker).await;
    kill(shim, Signal::SIGKILL).unwrap();
    until("the shim is gone", || !processes_of(&run).iter().any(|pid| is_shim(*pid))).await;
    (order, run)
}

async fn ended_with_worker_and_shim(pool: PgPool, freezer: Freezer) {
    let mut harness = Harness::new(pool);
    if let Err(reason) = find_freezer(&harness.program, freezer) {
        eprintln!("not by {} here: {reason}", freezer.as_str());
        return;
    }
    harness.set("AWO_FREEZER", freezer.as_str());
    let (order, run) = bereave(&mut harness, true).await;
    // No other worker is there to do it.
    until("the agent is gone", || processes_of(&run).is_empty()).await;
    harness.let_go("execute");
    harness.start_worker();
    harness.until_status(&order, "completed").await;
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_agent_in_a_cgroup_dies_with_its_worker_and_shim(pool: PgPool) {
    ended_with_worker_and_shim(pool, Freezer::Cgroup).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_agent_that_is_traced_dies_with_its_worker_and_shim(pool: PgPool) {
    ended_with_worker_and_shim(pool, Freezer::Ptrace).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_agent_that_nobody_was_left_to_end_is_ended_by_the_next_worker(pool: PgPool) {
    let mut harness = Harness::new(pool);
    let by_cgroup = find_freezer(&harness.program, Freezer::Cgroup).is_ok();
    // Tracing would leave nothing.
    harness.set("AWO_FREEZER", if by_cgroup { "cgroup" } else { "signal" });
    let (order, run) = bereave(&mut harness, false).await;
    assert!(!processes_of(&run).is_empty(), "an orphan is what this test is about");

    // Nothing is claimed, so no run of the order clears its sandbox.
    sqlx::query("select awo_pause_queue('default')").execute(&harness.pool).await.unwrap();
    harness.start_worker();
    // Only a cgroup tells a starting worker of agents that are not its own.
    if by_cgroup {
        until("the orphan is gone", || processes_of(&run).is_empty()).await;
    }
    sqlx::query("select awo_resume_queue('default')").execute(&harness.pool).await.unwrap();
    harness.until("select count(*) = 2 from awo.attempts").await;
    let again = || harness.agent_runs().last().unwrap()[0] != run;
    until("the step runs again", again).await;
    assert_eq!(processes_of(&run), Vec::<u32>::new(), "two agents in one sandbox");
    harness.let_go("execute");
    harness.until_status(&order, "completed").await;
    harness.assert_sound().await;
}
