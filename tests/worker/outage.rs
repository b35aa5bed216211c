//! A worker that is stopped for longer than its lease: its agent freezes, its writes are refused.

use std::fs;

use nix::sys::signal::Signal;
use sqlx::PgPool;

use crate::harness::{Harness, processes_of};

/// The state letter of a process in `/proc`: `T` when it is frozen.
pub fn state(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_agent_of_a_stopped_worker_is_frozen_before_another_may_begin(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.hold("execute");
    let first = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    let old = harness.agent_runs().last().unwrap().clone();
    harness.signal(first, Signal::SIGSTOP);
    harness.start_worker();
    // The second worker gets the order; at that moment nothing of the first may run.
    harness.until("select count(*) = 2 from awo.attempts").await;
    assert_eq!(state(&old[3]), Some('T'), "the first agent must be frozen");
    harness.let_go("execute");
    harness.signal(first, Signal::SIGCONT);
    harness.until_status(&order, "completed").await;
    assert!(processes_of(&old[0]).is_empty(), "the first agent must be dead");
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.len(), pulls.len()), (1, 1));
    harness.assert_sound().await;
}
