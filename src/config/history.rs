//! How long what has ended is kept.

use super::{ConfigError, keys, source::Reader, values};

/// Ages at which history is deleted, in days; `None` when it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryConfig {
    /// `AWO_HISTORY_DAYS`: orders that have ended, with everything that belongs to them.
    pub orders: Option<i32>,
    /// `AWO_LOG_DAYS`: the log of orders, whether they have ended or not.
    pub logs: Option<i32>,
}

impl HistoryConfig {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        Ok(Self {
            orders: reader.value(&keys::HISTORY_DAYS, values::days_or_off)?,
            logs: reader.value(&keys::LOG_DAYS, values::days_or_off)?,
        })
    }
}
