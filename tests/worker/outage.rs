//! A worker that is stopped for longer than its lease: its agent freezes, its writes are refused.

use nix::sys::signal::Signal;
use sqlx::PgPool;

use crate::{
    frozen::is_frozen,
    harness::{Harness, processes_of},
};

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
    assert!(is_frozen(old[3].parse().unwrap()), "the first agent must be frozen");
    harness.let_go("execute");
    harness.signal(first, Signal::SIGCONT);
    harness.until_status(&order, "completed").await;
    assert!(processes_of(&old[0]).is_empty(), "the first agent must be dead");
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.len(), pulls.len()), (1, 1));
    harness.assert_sound().await;
}
