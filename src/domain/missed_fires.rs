//! What a schedule does about times at which no worker was there to fire it.

use chrono::{DateTime, Duration, Utc};

use super::{Cron, CronError};

/// How late a time may be and still count as kept, for schedules that skip missed ones.
const LATE: Duration = Duration::minutes(1);

/// The policy of one schedule; `awo.schedules.missed_fires`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissedFires {
    /// Nothing: the next time is soon enough.
    Skip,
    /// One job for all of them.
    Coalesce,
    /// A job for each, the newest so many.
    CatchUp(usize),
}

impl MissedFires {
    /// Reads the two columns; the words are checked by the table.
    pub fn from_columns(word: &str, limit: i16) -> Self {
        match word {
            "skip" => Self::Skip,
            "catch_up" => Self::CatchUp(usize::try_from(limit).unwrap_or(1).max(1)),
            _ => Self::Coalesce,
        }
    }

    /// The times to fire now, oldest first, when everything up to `after` is settled.
    pub fn due(
        self,
        cron: &Cron,
        after: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Vec<DateTime<Utc>>, CronError> {
        match self {
            Self::Skip => cron.last(after.max(now - LATE), now, 1),
            Self::Coalesce => cron.last(after, now, 1),
            Self::CatchUp(limit) => cron.last(after, now, limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cron, MissedFires};

    fn due(policy: MissedFires, after: &str, now: &str) -> Vec<String> {
        let cron = Cron::parse("*/10 * * * *", "UTC").unwrap();
        let times = policy.due(&cron, after.parse().unwrap(), now.parse().unwrap()).unwrap();
        times.iter().map(|time| time.format("%H:%M").to_string()).collect()
    }

    #[test]
    fn each_policy_makes_up_for_what_it_says() {
        let (after, now) = ("2026-05-05T12:01:00Z", "2026-05-05T13:05:00Z");
        assert_eq!(due(MissedFires::Skip, after, now), [""; 0]);
        assert_eq!(due(MissedFires::Coalesce, after, now), ["13:00"]);
        assert_eq!(due(MissedFires::CatchUp(3), after, now), ["12:40", "12:50", "13:00"]);
        assert_eq!(due(MissedFires::CatchUp(99), after, now).len(), 6);
    }

    #[test]
    fn a_time_that_has_just_come_is_kept_by_all() {
        let (after, now) = ("2026-05-05T12:50:00Z", "2026-05-05T13:00:20Z");
        for policy in [MissedFires::Skip, MissedFires::Coalesce, MissedFires::CatchUp(5)] {
            assert_eq!(due(policy, after, now), ["13:00"], "{policy:?}");
            assert_eq!(due(policy, "2026-05-05T13:00:00Z", now), [""; 0], "{policy:?}");
        }
    }
}
