//! Writes a file whole or not at all, on a full volume too.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::fs;

use super::{Reserve, is_full};

/// Replaces the file at `path`, so that readers see the old or the new content, never a part. When
/// there is no space the reserve of the volume is given up for it: what ends a run is worth more.
pub async fn write_whole(path: &Path, bytes: &[u8], reserve: &Reserve) -> io::Result<()> {
    let mut staged = path.as_os_str().to_owned();
    staged.push(".part");
    let staged = PathBuf::from(staged);
    let write = async || {
        fs::write(&staged, bytes).await?;
        fs::rename(&staged, path).await
    };
    let mut written = write().await;
    if written.as_ref().is_err_and(is_full) && reserve.release() {
        written = write().await;
    }
    if written.is_err() {
        // A part of a file helps nobody, and takes the space that is missing.
        let _ = fs::remove_file(&staged).await;
    }
    written
}
