//! Deleting file trees that an agent may have arranged: links are removed and never followed, and
//! folders without permissions are opened first.

use std::{
    fs::Permissions,
    io,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};

use super::{Git, GitError, blocking, lock::FileLock, volume::MARKER};
use crate::domain::WorkOrderId;

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
        let trash = volume.trash();
        let name = order.to_string();
        blocking(move || {
            require_ours(&sandbox, &trusted)?;
            let moved = [(&sandbox, "sandbox"), (&trusted, "trusted")]
                .map(|(path, kind)| discard(path, &trash, &format!("{name}.{kind}")));
            for place in moved {
                if let Some(place) = place? {
                    delete(&place)?;
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
    let Ok(metadata) = std::fs::symlink_metadata(sandbox) else { return Ok(()) };
    let marked = std::fs::symlink_metadata(sandbox.join(MARKER)).is_ok_and(|file| file.is_file());
    let unused = || std::fs::read_dir(sandbox).is_ok_and(|mut entries| entries.next().is_none());
    if metadata.is_dir() && (marked || trusted.exists() || unused()) {
        return Ok(());
    }
    Err(GitError::NotASandbox { path: sandbox.to_owned() })
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
    let remove = || match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    let result = match remove() {
        // Folders without write permission keep their files; only their owner can change that.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path);
            remove()
        }
        other => other,
    };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(GitError::file("delete", path)(error))
        }
        _ => Ok(()),
    }
}

/// Gives the owner every permission on each folder of the tree.
fn open_up(root: &Path) {
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        // Through a descriptor that cannot be a link: a name could become one between two calls.
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let Ok(descriptor) = open(&folder, flags, Mode::empty()) else { continue };
        let own = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        if std::fs::set_permissions(&own, Permissions::from_mode(0o700)).is_err() {
            continue;
        }
        let Ok(entries) = std::fs::read_dir(&own) else { continue };
        let inside = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
        folders.extend(inside.map(|entry| folder.join(entry.file_name())));
    }
}
