//! How long to wait before another attempt.

use std::time::Duration;

use crate::clock::Clock;

/// Longest wait that the failing side may ask for: providers have weekly limits. What it says is an
/// agent's output in the end, and a time that never comes would lose the order.
pub const LONGEST_ASKED: Duration = Duration::from_hours(7 * 24);

/// Part of a time asked for over which those who wait for it come back.
const SPREAD: u32 = 10;

/// Exponential backoff with jitter: a random time between the half and the whole of a ceiling that doubles.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Ceiling of the first retry.
    pub base: Duration,
    /// Highest ceiling.
    pub max: Duration,
}

impl Backoff {
    /// The wait after failure number `failure` (from 1). It is longer than what the failing side asked for
    /// (`retry_after`, up to [`LONGEST_ASKED`]) by a random time, up to a tenth of that and no more than
    /// the highest ceiling: not every replica shall come back in the second that one provider named to all.
    pub fn delay(&self, clock: &Clock, failure: u32, retry_after: Option<Duration>) -> Duration {
        let doublings = failure.saturating_sub(1).min(20);
        let ceiling = self.base.saturating_mul(1 << doublings).min(self.max);
        let wait = clock.between(ceiling / 2, ceiling);
        let Some(asked) = retry_after.map(asked) else { return wait };
        let spread = (asked / SPREAD).max(ceiling).min(self.max);
        wait.max(asked + clock.between(Duration::ZERO, spread))
    }
}

/// What is waited of a time that the failing side asked for.
pub fn asked(retry_after: Duration) -> Duration {
    retry_after.min(LONGEST_ASKED)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, LONGEST_ASKED};
    use crate::clock::Clock;

    const BACKOFF: Backoff =
        Backoff { base: Duration::from_secs(10), max: Duration::from_mins(10) };

    fn seconds(random: f64, retry_after: Option<u64>) -> Vec<u64> {
        let clock = Clock::with_random(random);
        let asked = retry_after.map(Duration::from_secs);
        (1..=8).map(|n| BACKOFF.delay(&clock, n, asked).as_secs()).collect()
    }

    #[test]
    fn ceilings_double_up_to_the_maximum() {
        assert_eq!(seconds(1.0, None), [10, 20, 40, 80, 160, 320, 600, 600]);
        let clock = Clock::with_random(1.0);
        assert_eq!(BACKOFF.delay(&clock, u32::MAX, None), BACKOFF.max);
    }

    #[test]
    fn no_wait_is_shorter_than_half_its_ceiling() {
        assert_eq!(seconds(0.0, None), [5, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn what_the_failing_side_asks_for_is_the_least() {
        assert_eq!(seconds(0.0, Some(77)), [77, 77, 77, 77, 80, 160, 300, 300]);
    }

    #[test]
    fn those_who_wait_for_one_time_do_not_come_back_in_the_same_second() {
        assert_eq!(seconds(1.0, Some(77))[..3], [87, 97, 117]);
        // Five hours: spread over ten minutes.
        assert_eq!(seconds(1.0, Some(18_000))[0], 18_600);
    }

    #[test]
    fn a_time_that_never_comes_is_not_waited_for() {
        let clock = Clock::with_random(0.0);
        assert_eq!(BACKOFF.delay(&clock, 1, Some(Duration::MAX)), LONGEST_ASKED);
    }
}
