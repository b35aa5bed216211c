//! Whether leases can be renewed: what is known of the latest heartbeats.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

/// For how many intervals between two beats an acknowledged one is good enough to claim on: one may be on
/// its way.
const FRESH_BEATS: u32 = 2;

/// When heartbeats last worked, and when and why they last did not.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    /// The last acknowledged beat was sent then; `None` before the first.
    pub acknowledged: Option<Instant>,
    /// The last beat that failed was sent then.
    pub failed: Option<Instant>,
    /// Why it failed.
    pub reason: Option<Arc<str>>,
}

impl Pulse {
    /// Whether the last beat failed.
    pub fn is_failing(&self) -> bool {
        self.failed > self.acknowledged
    }

    /// Why nothing may be claimed at `now`, as a sentence; `None` when a claimed lease would be renewed.
    /// `interval` is the time between two beats.
    pub fn problem(&self, now: Instant, interval: Duration) -> Option<String> {
        let rest = "no orders are claimed until one is acknowledged";
        if self.is_failing() {
            let reason = self.reason.as_deref().unwrap_or("for an unknown reason");
            return Some(format!("the last heartbeat failed ({reason}): {rest}"));
        }
        let Some(at) = self.acknowledged else {
            return Some(
                "no heartbeat was acknowledged yet: no orders are claimed before".to_owned(),
            );
        };
        let age = now.saturating_duration_since(at);
        let late =
            || format!("no heartbeat was acknowledged for {:.1} s: {rest}", age.as_secs_f64());
        (age > interval * FRESH_BEATS).then(late)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Pulse;
    use crate::clock::Clock;

    #[test]
    fn claims_need_a_fresh_beat_that_was_acknowledged() {
        let (now, beat) = (Clock::system().now(), Duration::from_secs(10));
        let problem =
            |pulse: &Pulse, after: u64| pulse.problem(now + Duration::from_secs(after), beat);
        let mut pulse = Pulse::default();
        let sentence = problem(&pulse, 0).unwrap();
        assert_eq!(sentence, "no heartbeat was acknowledged yet: no orders are claimed before");
        pulse.acknowledged = Some(now);
        assert_eq!(problem(&pulse, 20), None);
        let sentence = problem(&pulse, 21).unwrap();
        assert!(sentence.starts_with("no heartbeat was acknowledged for 21.0 s"), "{sentence}");
        pulse.failed = Some(now + Duration::from_secs(10));
        pulse.reason = Some("too many connections".into());
        let sentence = problem(&pulse, 10).unwrap();
        assert!(
            sentence.starts_with("the last heartbeat failed (too many connections)"),
            "{sentence}"
        );
        pulse.acknowledged = Some(now + Duration::from_secs(11));
        assert_eq!(problem(&pulse, 12), None, "it works again");
    }
}
