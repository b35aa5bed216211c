//! How long the sandboxes of ended orders are kept. Read again whenever the sandboxes are cleaned up, so
//! that a change needs no restart.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    Config, ConfigError, Host,
    keys::{self, Key},
    source::Reader,
    values,
};

/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;
/// What the table `archon_settings` may say about it, by the names of settings files.
const KEYS: [&Key; 5] = [
    &keys::RETENTION_DAYS,
    &keys::RETENTION_COMPLETED,
    &keys::RETENTION_FAILED,
    &keys::RETENTION_CANCELLED,
    &keys::RETENTION_ORPHANS,
];

/// Ages at which the sandboxes of ended orders go; `None`: they stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Of completed orders.
    pub completed: Option<Duration>,
    /// Of failed ones.
    pub failed: Option<Duration>,
    /// Of cancelled ones.
    pub cancelled: Option<Duration>,
    /// Of orders that were deleted; and where it is asked for, of orders the database never had, counted
    /// from the last change of their folders.
    pub orphans: Option<Duration>,
}

/// What was set, before one value stands in for another.
#[derive(Debug, Clone, Copy)]
struct Written {
    days: Option<i32>,
    /// In the order of [`KEYS`], without the days; inside: zero for off.
    ages: [Option<Duration>; 4],
}

/// The policy, and where it is read from again.
#[derive(Clone)]
pub struct RetentionConfig {
    written: Written,
    host: Arc<Host>,
}

impl fmt::Debug for RetentionConfig {
    // The host holds the whole environment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetentionConfig").field("policy", &self.policy()).finish_non_exhaustive()
    }
}

impl RetentionConfig {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        let mut age = |key| reader.optional(key, values::duration_or_off);
        let ages = [
            age(&keys::RETENTION_COMPLETED)?,
            age(&keys::RETENTION_FAILED)?,
            age(&keys::RETENTION_CANCELLED)?,
            age(&keys::RETENTION_ORPHANS)?,
        ];
        let days = reader.value(&keys::RETENTION_DAYS, values::days_or_off)?;
        Ok(Self { written: Written { days, ages }, host: Arc::new(reader.host().clone()) })
    }

    /// The policy as it was when the settings were read.
    pub fn policy(&self) -> RetentionPolicy {
        self.written.policy()
    }

    /// Names of the rows of `archon_settings` that stand above environment and files.
    pub fn rows() -> Vec<String> {
        KEYS.iter().map(|key| key.file_name()).collect()
    }

    /// The policy as it is now: files and environment are read again, and `rows` of the table
    /// `archon_settings` stand above them.
    pub fn current(&self, rows: &[(String, String)]) -> Result<RetentionPolicy, ConfigError> {
        let mut written = Config::load(&self.host)?.retention.written;
        for (name, value) in rows {
            let Some(place) = KEYS.iter().position(|key| key.file_name() == *name) else {
                continue;
            };
            let value = value.trim();
            let understood = match place {
                _ if value.is_empty() => Some(()),
                0 => values::days_or_off(value).map(|days| written.days = days),
                _ => values::duration_or_off(value).map(|age| written.ages[place - 1] = Some(age)),
            };
            understood.ok_or_else(|| ConfigError::Invalid {
                name: name.clone(),
                value: format!("{value:?}"),
                place: " in the table archon_settings".to_owned(),
                expected: KEYS[place].expected.to_owned(),
            })?;
        }
        Ok(written.policy())
    }
}

impl Written {
    fn policy(self) -> RetentionPolicy {
        let days = self.days.and_then(|days| u64::try_from(days).ok());
        let days = days.map(|days| Duration::from_secs(days * DAY));
        let of = |age: Option<Duration>| match age {
            Some(Duration::ZERO) => None,
            Some(age) => Some(age),
            None => days,
        };
        let [completed, failed, cancelled, orphans] = self.ages.map(of);
        RetentionPolicy { completed, failed, cancelled, orphans }
    }
}
