//! How long to wait before another attempt.

use std::time::Duration;

use crate::clock::Clock;

/// Longest wait that the failing side may ask for: providers have weekly limits. What it says is an
/// agent's output in the end, and a time that never comes would lose the order.
pub const LONGEST_ASKED: Duration = Duration::from_hours(7 * 24);

/// Exponential backoff with full jitter: a random time between zero and a ceiling that doubles.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Ceiling of the first retry.
    pub base: Duration,
    /// Highest ceiling.
    pub max: Duration,
}

impl Backoff {
    /// The wait after attempt number `attempt` (from 1), never less than what the failing side
    /// asked for (`retry_after`), up to [`LONGEST_ASKED`].
    pub fn delay(&self, clock: &Clock, attempt: u32, retry_after: Option<Duration>) -> Duration {
        let doublings = attempt.saturating_sub(1).min(20);
        let ceiling = self.base.saturating_mul(1 << doublings).min(self.max);
        let asked = retry_after.unwrap_or_default().min(LONGEST_ASKED);
        clock.between(Duration::ZERO, ceiling).max(asked)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, LONGEST_ASKED};
    use crate::clock::Clock;

    const BACKOFF: Backoff =
        Backoff { base: Duration::from_secs(10), max: Duration::from_mins(10) };

    #[test]
    fn ceilings_double_up_to_the_maximum() {
        let clock = Clock::with_random(1.0);
        let delays: Vec<u64> = (1..=8).map(|n| BACKOFF.delay(&clock, n, None).as_secs()).collect();
        assert_eq!(delays, [10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(BACKOFF.delay(&clock, u32::MAX, None), BACKOFF.max);
    }

    #[test]
    fn what_the_failing_side_asks_for_is_the_least() {
        let clock = Clock::with_random(0.0);
        assert_eq!(BACKOFF.delay(&clock, 1, None), Duration::ZERO);
        let asked = Duration::from_secs(77);
        assert_eq!(BACKOFF.delay(&clock, 1, Some(asked)), asked);
    }

    #[test]
    fn a_time_that_never_comes_is_not_waited_for() {
        let clock = Clock::with_random(0.0);
        assert_eq!(BACKOFF.delay(&clock, 1, Some(Duration::MAX)), LONGEST_ASKED);
    }
}
