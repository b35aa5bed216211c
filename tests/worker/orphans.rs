//! Worker and shim are killed together, as the kernel does when memory is short: nobody is left to end
//! the agent, until a worker starts on that host.

use std::fs;

use archon_awo::{
    agent::{FreezerReport, find_freezer},
    config::Freezer,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::PgPool;

use crate::harness::{Harness, processes_of, until};

fn is_shim(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|b| *b == 0).nth(1) == Some(b"shim")
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_agent_whose_worker_and_shim_were_killed_is_ended_by_the_next_worker(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.hold("execute");
    let first = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    let run = harness.agent_runs().last().unwrap()[0].clone();
    let shim = processes_of(&run).into_iter().find(|pid| is_shim(*pid)).unwrap();
    let shim = Pid::from_raw(shim.try_into().unwrap());
    // Stopped first, or it would end its agent as the worker dies.
    kill(shim, Signal::SIGSTOP).unwrap();
    harness.signal(first, Signal::SIGKILL);
    harness.ended(first).await;
    kill(shim, Signal::SIGKILL).unwrap();
    until("the shim is gone", || !processes_of(&run).iter().any(|pid| is_shim(*pid))).await;
    assert!(!processes_of(&run).is_empty(), "an orphan is what this test is about");

    // Nothing is claimed, so no run of the order clears its sandbox.
    sqlx::query("select awo_pause_queue('default')").execute(&harness.pool).await.unwrap();
    harness.start_worker();
    // Only a cgroup tells a starting worker of agents that are not its own.
    if let FreezerReport::Cgroup(_) = find_freezer(&harness.program, Freezer::Auto).unwrap() {
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
