//! The queue: claims jobs, keeps their leases alive, records how they end and takes back those of
//! dead workers. Replicas know nothing of each other; the database decides.

mod backend;
mod kinds;
mod lease;
mod rescue;
mod retry;
mod settle;
mod wake;
mod worker;

use std::time::Duration;

pub use kinds::JobContext;
pub use lease::{Lease, LeaseKeeper, StopReason};
pub use retry::Backoff;
pub use worker::Worker;

/// The numbers of the queue. DESIGN: heartbeat < self-fence < lease, so that an agent is frozen
/// before anybody else may get its job.
#[derive(Debug, Clone)]
pub struct Timings {
    /// How long a lease lives without a heartbeat.
    pub lease: Duration,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Time since the last acknowledged heartbeat after which agents are frozen.
    pub self_fence: Duration,
    /// Time an expired lease is left alone before it is rescued.
    pub rescue_grace: Duration,
    /// Shortest time between two looks at the queue while notifications are not trusted.
    pub poll_min: Duration,
    /// Longest time between two looks while notifications are not trusted.
    pub poll_max: Duration,
    /// Time between two looks while notifications are proven to arrive.
    pub poll_idle: Duration,
    /// How long a running step may go on after SIGTERM before its agent is interrupted.
    pub drain_grace: Duration,
}
