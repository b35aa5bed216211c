//! How much the caches of repositories may keep.

use std::time::Duration;

use super::{ConfigError, keys, source::Reader, values};

/// Limits of the caches under `AWO_REPOSITORY_DIR`; `None` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheConfig {
    /// `AWO_CACHE_DAYS`: how long the cache of a repository stays that nobody uses.
    pub idle: Option<Duration>,
    /// `AWO_CACHE_MAX`: bytes of all of them.
    pub bytes: Option<u64>,
}

impl CacheConfig {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        let days = reader.value(&keys::CACHE_DAYS, values::days_or_off)?;
        let days = days.and_then(|days| u64::try_from(days).ok());
        let idle = days.map(|days| Duration::from_hours(24 * days));
        let bytes = reader.value(&keys::CACHE_MAX, values::size_or_off)?;
        Ok(Self { idle, bytes })
    }
}
