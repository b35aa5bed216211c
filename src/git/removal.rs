//! Removing what belongs to an order: only what archon-awo made, by way of the trash, so that a crash
//! leaves no half sandbox.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{Git, GitError, blocking, lock::FileLock, sandbox, volume::MARKER};
use crate::{
    disk::{Deleted, trash},
    domain::WorkOrderId,
};

impl Git {
    /// Removes the sandbox of an order and its trusted repository; fine when they are gone.
    ///
    /// Everything is moved to the trash first, so that a crash leaves no half sandbox.
    #[tracing::instrument(name = "git.remove_sandbox", skip_all, fields(order = %order))]
    pub async fn remove_sandbox(&self, order: &WorkOrderId) -> Result<(), GitError> {
        self.prepare().await?;
        let volume = self.volume();
        let lock =
            FileLock::acquire(volume.order_lock(order), self.settings().lock_timeout).await?;
        let (sandbox, trusted) = (volume.sandbox(order), volume.trusted(order));
        let place = volume.trash();
        let name = order.to_string();
        blocking(move || {
            require_ours(&sandbox, &trusted)?;
            let moved = [(&sandbox, "sandbox"), (&trusted, "trusted")]
                .map(|(path, kind)| discard(path, &place, &format!("{name}.{kind}")));
            for place in moved {
                if let Some(place) = place? {
                    report(&place, trash::clear(&place))?;
                }
            }
            lock.remove().map_err(GitError::file("remove the lock of", &sandbox))
        })
        .await
    }
}

/// Refuses a folder that archon-awo did not make. The marker may have been deleted by the agent,
/// whose order is then known by its trusted repository.
pub(super) fn require_ours(sandbox: &Path, trusted: &Path) -> Result<(), GitError> {
    let unused = || std::fs::read_dir(sandbox).is_ok_and(|mut entries| entries.next().is_none());
    if is_ours(sandbox, trusted) || (sandbox::is_folder(sandbox) && unused()) {
        return Ok(());
    }
    Err(GitError::NotASandbox { path: sandbox.to_owned() })
}

/// Whether there is no sandbox, or one that archon-awo made.
pub(super) fn is_ours(sandbox: &Path, trusted: &Path) -> bool {
    let Ok(metadata) = std::fs::symlink_metadata(sandbox) else { return true };
    let marked = std::fs::symlink_metadata(sandbox.join(MARKER)).is_ok_and(|file| file.is_file());
    metadata.is_dir() && (marked || trusted.exists())
}

/// Moves `path` into the trash; `None` when there is nothing.
pub(super) fn discard(path: &Path, trash: &Path, name: &str) -> Result<Option<PathBuf>, GitError> {
    let place = trash.join(format!("{name}.{}", uuid::Uuid::new_v4().simple()));
    match std::fs::rename(path, &place) {
        Ok(()) => Ok(Some(place)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(GitError::file("move to the trash", path)(error)),
    }
}

/// Deletes a file or a tree; fine when it is gone.
pub(super) fn delete(path: &Path) -> Result<(), GitError> {
    report(path, trash::delete(path).map(Some))
}

/// The first thing that could not be deleted, as an error.
fn report(path: &Path, deleted: io::Result<Option<Deleted>>) -> Result<(), GitError> {
    let deleted = deleted.map_err(GitError::file("delete", path))?;
    match deleted.and_then(|deleted| deleted.told.into_iter().next()) {
        Some((path, error)) => Err(GitError::file("delete", &path)(error)),
        None => Ok(()),
    }
}
