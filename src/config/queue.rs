//! What a worker takes from the queue, and the times by which replicas trust each other.

use std::time::Duration;

use super::{
    ConfigError,
    keys::{self, Key},
    source::Reader,
    values,
};

/// What freezing a tree of processes may take on a busy host: agents stand still at least that long
/// before their lease ends.
const FREEZE_MARGIN: Duration = Duration::from_millis(500);

/// The queue as one worker sees it.
#[derive(Debug, Clone)]
pub struct QueueConfig {
    /// `AWO_MAX_CONCURRENT`: most orders this worker runs at once.
    pub max_concurrent: u16,
    /// `AWO_QUEUES`: where it takes them from.
    pub queues: Vec<String>,
    /// `AWO_LEASE`: how long an order stays its worker's without a heartbeat.
    pub lease: Duration,
    /// `AWO_HEARTBEAT`: how often leases are renewed.
    pub heartbeat: Duration,
    /// `AWO_SELF_FENCE`: how long after the last acknowledged heartbeat agents are frozen.
    pub self_fence: Duration,
    /// `AWO_RESCUE_GRACE`: how long after the end of a lease others may take the order.
    pub rescue_grace: Duration,
    /// `AWO_POLL_MIN`: shortest time between two looks for work.
    pub poll_min: Duration,
    /// `AWO_POLL_MAX`: longest time between two looks for work.
    pub poll_max: Duration,
    /// `AWO_POLL_IDLE`: longest time between two looks while notifications are proven to arrive.
    pub poll_idle: Duration,
    /// `AWO_DRAIN_GRACE`: how long running steps may take to finish after SIGTERM.
    pub drain_grace: Duration,
    /// `AWO_PRIORITY_AGING`: how long a waiting job takes to gain one step of priority; zero when
    /// it gains none.
    pub priority_aging: Duration,
    /// `AWO_RETRY_BASE`: longest wait before the first retry.
    pub retry_base: Duration,
    /// `AWO_RETRY_MAX`: longest wait before any retry.
    pub retry_max: Duration,
    /// `AWO_RETRY_FOR`: how long an order waits out what fails outside of it.
    pub retry_for: Duration,
}

impl QueueConfig {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        let queue = Self {
            max_concurrent: reader.value(&keys::MAX_CONCURRENT, values::number(1..=256))?,
            queues: reader.value(&keys::QUEUES, |text| values::list(text, is_queue_name))?,
            lease: reader.value(&keys::LEASE, values::duration)?,
            heartbeat: reader.value(&keys::HEARTBEAT, values::duration)?,
            self_fence: reader.value(&keys::SELF_FENCE, values::duration)?,
            rescue_grace: reader.value(&keys::RESCUE_GRACE, values::duration)?,
            poll_min: reader.value(&keys::POLL_MIN, values::duration)?,
            poll_max: reader.value(&keys::POLL_MAX, values::duration)?,
            poll_idle: reader.value(&keys::POLL_IDLE, values::duration)?,
            drain_grace: reader.value(&keys::DRAIN_GRACE, values::duration)?,
            priority_aging: reader.value(&keys::PRIORITY_AGING, values::duration_or_off)?,
            retry_base: reader.value(&keys::RETRY_BASE, values::duration)?,
            retry_max: reader.value(&keys::RETRY_MAX, values::duration)?,
            retry_for: reader.value(&keys::RETRY_FOR, values::duration)?,
        };
        queue.check()?;
        Ok(queue)
    }

    /// Whether the times fit each other: heartbeat < self-fence < lease < rescue.
    ///
    /// The rescue comes after the end of a lease by itself: its grace is never zero.
    fn check(&self) -> Result<(), ConfigError> {
        let self_fence = (&keys::SELF_FENCE, self.self_fence);
        // One beat that fails is no reason to freeze: the next one still comes in time.
        if self.heartbeat * 2 >= self.self_fence {
            let relation =
                "two heartbeats to fit before the agents are frozen, so less than half of";
            return Err(conflict((&keys::HEARTBEAT, self.heartbeat), relation, self_fence));
        }
        // A worker that cannot renew its leases has stopped its agents before others may go on.
        if self.self_fence + FREEZE_MARGIN > self.lease {
            let relation =
                "agents to stand still before others may go on, so at least 500ms less than";
            return Err(conflict(self_fence, relation, (&keys::LEASE, self.lease)));
        }
        let poll_max = (&keys::POLL_MAX, self.poll_max);
        at_most((&keys::POLL_MIN, self.poll_min), poll_max)?;
        at_most(poll_max, (&keys::POLL_IDLE, self.poll_idle))?;
        at_most((&keys::RETRY_BASE, self.retry_base), (&keys::RETRY_MAX, self.retry_max))
    }
}

type Named = (&'static Key, Duration);

fn at_most(low: Named, high: Named) -> Result<(), ConfigError> {
    if low.1 <= high.1 { Ok(()) } else { Err(conflict(low, "no more than", high)) }
}

fn conflict(low: Named, relation: &str, high: Named) -> ConfigError {
    let bound = humantime::format_duration(high.1);
    ConfigError::Conflict {
        name: low.0.name(),
        value: humantime::format_duration(low.1).to_string(),
        expected: format!("{relation} {} ({bound})", high.0.name()),
    }
}

/// The rule of the check on `awo.queues.name`.
fn is_queue_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    name.len() <= 63 && name.chars().all(allowed) && !name.starts_with(['-', '_'])
}
