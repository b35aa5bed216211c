//! Reads one file of rules that an agent may have written: no link is followed, nothing waits, and no more
//! is read than rules need.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use nix::fcntl::OFlag;

use super::GitError;

/// The most bytes that a file of rules may have: some hundred times the longest that are in use.
const LONGEST: u64 = 1 << 20;

/// The content of a file of rules; `None`: there is none. As for git, a link or a folder is none.
///
/// # Errors
/// It is there and cannot be read, or may not be.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, GitError> {
    let unusable = |problem: &str| GitError::Unusable(format!("{} {problem}", path.display()));
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(None),
        _ => Err(unusable(&format!(
            "has rules and cannot be read ({error}): make it readable or remove it"
        ))),
    };
    let about = match fs::symlink_metadata(path) {
        Ok(about) => about.file_type(),
        Err(error) => return unreadable(error),
    };
    if about.is_symlink() || about.is_dir() {
        return Ok(None);
    }
    if !about.is_file() {
        return Err(unusable("is a pipe or a device: remove it"));
    }
    // It may have become a link or a pipe since.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) => return unreadable(error),
    };
    let mut content = Vec::new();
    if let Err(error) = file.take(LONGEST + 1).read_to_end(&mut content) {
        return unreadable(error);
    }
    if content.len() as u64 > LONGEST {
        return Err(unusable(&format!("has more than {} KiB of rules: shorten it", LONGEST >> 10)));
    }
    Ok(Some(content))
}
