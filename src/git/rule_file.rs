//! Reads one file of rules that an agent may have written: no link is followed, nothing waits, and no more
//! is read than rules need.

use std::{
    io::{self, Read},
    path::Path,
};

use super::GitError;
use crate::disk::{Beneath, Kind};

/// The most bytes that a file of rules may have: some hundred times the longest that are in use.
const LONGEST: u64 = 1 << 20;

/// The content of a file of rules below a folder; `None`: there is none. As for git, a link or a folder is
/// none.
///
/// # Errors
/// It is there and cannot be read, or may not be.
pub(super) fn read(folder: &Beneath, path: &Path) -> Result<Option<Vec<u8>>, GitError> {
    let unusable = |problem: &str| GitError::Unusable(format!("{} {problem}", path.display()));
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(None),
        _ => Err(unusable(&format!(
            "has rules and cannot be read ({error}): make it readable or remove it"
        ))),
    };
    match folder.about(path).map(|about| about.kind) {
        Ok(Kind::File) => {}
        Ok(Kind::Link | Kind::Folder) => return Ok(None),
        Ok(Kind::Mount) => return Err(unusable("is the top of another file system: unmount it")),
        Ok(_) => return Err(unusable("is a pipe or a device: remove it")),
        Err(error) => return unreadable(error),
    }
    // It may have become a link or a pipe since.
    let file = match folder.file(path) {
        Ok((file, _)) => file,
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

/// The same for a file of ours by its path.
pub(super) fn read_own(file: &Path) -> Result<Option<Vec<u8>>, GitError> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else { return Ok(None) };
    match Beneath::open(folder) {
        Ok(folder) => read(&folder, Path::new(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(GitError::file("open the folder", folder)(error)),
    }
}
