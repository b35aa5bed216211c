//! How long to wait before another attempt.

use std::time::Duration;

use crate::clock::Clock;

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
    /// asked for (`retry_after`).
    pub fn delay(&self, clock: &Clock, attempt: u32, retry_after: Option<Duration>) -> Duration {
        let doublings = attempt.saturating_sub(1).min(20);
        let ceiling = self.base.saturating_mul(1 << doublings).min(self.max);
        clock.between(Duration::ZERO, ceiling).max(retry_after.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;
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
}
