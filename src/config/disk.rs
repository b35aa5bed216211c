//! How much of the volumes must stay free, and how much one sandbox may take.

use super::{ConfigError, keys, source::Reader, values};
use crate::disk::{DiskMarks, Mark, parse_size};

/// The disk as one worker sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiskConfig {
    /// What must be free.
    pub marks: DiskMarks,
    /// `AWO_SANDBOX_QUOTA`: the most a sandbox may take on disk, in bytes; `None` for no limit.
    pub sandbox_quota: Option<u64>,
}

impl DiskConfig {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        let bytes = |text: &str| Mark::parse(text, parse_size);
        let inodes = |text: &str| Mark::parse(text, |text| values::number(0..=u64::MAX)(text));
        Ok(Self {
            marks: DiskMarks {
                soft_bytes: reader.value(&keys::DISK_SOFT_FREE, bytes)?,
                hard_bytes: reader.value(&keys::DISK_HARD_FREE, bytes)?,
                soft_inodes: reader.value(&keys::DISK_SOFT_INODES, inodes)?,
                hard_inodes: reader.value(&keys::DISK_HARD_INODES, inodes)?,
            },
            sandbox_quota: reader.value(&keys::SANDBOX_QUOTA, values::size_or_off)?,
        })
    }
}
