//! Locks between replicas that share a volume: `flock`, so a dead holder never wedges the others.

use std::{
    fs::{File, TryLockError},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::fcntl::OFlag;

use super::{GitError, blocking};

/// How often a held lock is tried again.
const POLL: Duration = Duration::from_millis(50);

/// An exclusive lock, held until it and every descriptor shared from it are closed.
#[derive(Debug)]
pub(super) struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Waits for the lock, at most `timeout`.
    pub(super) async fn acquire(path: PathBuf, timeout: Duration) -> Result<Self, GitError> {
        let wait = async {
            loop {
                let attempt = path.clone();
                if let Some(lock) = blocking(move || Self::attempt(&attempt)).await? {
                    return Ok(lock);
                }
                tokio::time::sleep(POLL).await;
            }
        };
        match tokio::time::timeout(timeout, wait).await {
            Ok(result) => result,
            Err(_) => Err(GitError::LockTimeout { path, after: timeout }),
        }
    }

    /// The lock when nobody holds it; `None` when somebody does.
    pub(super) fn attempt(path: &Path) -> Result<Option<Self>, GitError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(GitError::file("make the folder", folder))?;
        }
        let failed = GitError::file("open the lock file", path);
        let file = match File::options().create(true).truncate(false).write(true).open(path) {
            Ok(file) => file,
            Err(error) => return Err(failed(error)),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                return Err(GitError::file("lock", path)(error));
            }
        }
        // A holder may have removed the file between our open and our lock: then our lock is on a
        // file nobody else will ever see.
        let same = match (file.metadata(), std::fs::metadata(path)) {
            (Ok(ours), Ok(named)) => ours.ino() == named.ino() && ours.dev() == named.dev(),
            _ => false,
        };
        Ok(same.then(|| Self { file, path: path.to_owned() }))
    }

    /// Whether nobody holds the lock on `path`, a file that an agent may have replaced: no link is
    /// followed, nothing is made and no pipe is waited for.
    pub(super) fn is_free(path: &Path) -> Result<bool, GitError> {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = match File::options().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(GitError::file("open the lock file", path)(error)),
        };
        match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(GitError::file("lock", path)(error)),
        }
    }

    /// A descriptor for a child: the lock lasts as long as the child, even when we are killed.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        self.file.try_clone().map(OwnedFd::from)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the lock file; done while it is held, so that nobody else holds it.
    pub(super) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{FileLock, GitError};

    #[tokio::test]
    async fn a_held_lock_gives_a_typed_error_and_a_dropped_one_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/lock");
        let held = FileLock::acquire(path.clone(), Duration::from_secs(5)).await.unwrap();
        let shared = held.share().unwrap();
        let refused = FileLock::acquire(path.clone(), Duration::from_millis(120)).await;
        assert!(matches!(refused, Err(GitError::LockTimeout { .. })), "{refused:?}");
        drop(held);
        let refused = FileLock::acquire(path.clone(), Duration::from_millis(120)).await;
        assert!(refused.is_err(), "a shared descriptor must keep the lock");
        assert!(!FileLock::is_free(&path).unwrap());
        drop(shared);
        let free = FileLock::acquire(path.clone(), Duration::from_secs(5)).await.unwrap();
        assert!(!FileLock::is_free(&path).unwrap());
        free.remove().unwrap();
        assert!(!path.exists());
        assert!(FileLock::is_free(&path).unwrap() && !path.exists());
    }
}
