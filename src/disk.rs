//! Free space on the volumes: how much there is, how much there must be, and what is kept for the
//! day on which there is none.

mod marks;
mod reserve;
mod space;
mod state;
mod usage;
mod whole;

use std::io::{self, ErrorKind};

pub use marks::{DiskMarks, Level, Mark, parse_size, size_text};
pub use reserve::Reserve;
pub use space::{DiskSpace, Space, SystemDisk};
pub use state::{DiskState, VolumeState};
pub use usage::{Usage, usage};
pub use whole::write_whole;

/// Whether an operation failed because a volume, or somebody's share of it, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Whether a program's words say so; C libraries have one text for each of the two errors.
pub fn says_full(words: &str) -> bool {
    ["No space left on device", "Disk quota exceeded", "ENOSPC", "EDQUOT"]
        .iter()
        .any(|text| words.contains(text))
}
