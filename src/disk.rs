//! Free space on the volumes: how much there is, how much there must be, and what is kept for the
//! day on which there is none.

pub(crate) mod beneath;
mod closed;
mod marks;
mod ownership;
mod redacted;
mod reserve;
mod space;
mod state;
pub(crate) mod trash;
mod unlink;
mod usage;
mod whole;

use std::{
    fs::File,
    io::{self, ErrorKind},
    path::Path,
};

use nix::sys::{stat::futimens, time::TimeSpec};

pub(crate) use beneath::{About, Beneath, Kind};
pub use closed::{Closed, look_at_volume};
pub use marks::{DiskMarks, Level, Mark, parse_size, size_text};
pub(crate) use ownership::Passing;
pub(crate) use redacted::{Cut, Kept, Redacted, holds_secret, judge};
pub use reserve::Reserve;
pub use space::{DiskSpace, Space, SystemDisk};
pub use state::{DiskState, VolumeState};
pub(crate) use trash::Hold;
pub(crate) use unlink::{Deleted, delete_at};
pub use usage::{Usage, usage};
pub use whole::write_whole;

/// Whether an operation failed because a volume, or somebody's share of it, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Sets the times of a file to those of its file system. It takes no space once the file is there: a
/// full volume is tidied too.
pub(crate) fn touch(path: &Path) -> io::Result<()> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    Ok(futimens(&file, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW)?)
}

/// Whether a program's words say so; C libraries have one text for each of the two errors.
pub fn says_full(words: &str) -> bool {
    ["No space left on device", "Disk quota exceeded", "ENOSPC", "EDQUOT"]
        .iter()
        .any(|text| words.contains(text))
}
