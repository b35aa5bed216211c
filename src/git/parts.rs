//! Fetches what the files of a fresh checkout stand for: contents of Git LFS and submodules.

use std::path::PathBuf;

use super::{Git, GitError, Mirror, Parts, lock::FileLock, submodules::Budget};
use crate::domain::SandboxType;

/// A checkout that git has just written. No agent has seen it, so git may work in it.
pub(super) struct Fresh<'a> {
    /// The cache it was made from.
    pub(super) mirror: &'a Mirror,
    /// Whose objects it reads.
    pub(super) form: SandboxType,
    /// What it is to hold.
    pub(super) parts: &'a Parts,
    /// Its files, with `.git` among them.
    pub(super) folder: PathBuf,
    /// The lock of its order.
    pub(super) lock: &'a FileLock,
}

impl Fresh<'_> {
    pub(super) fn git_dir(&self) -> PathBuf {
        self.folder.join(".git")
    }
}

impl Git {
    /// Fetches what belongs to the files in the index of a fresh checkout. Answers the folders of objects
    /// that it borrows from now on.
    pub(super) async fn fill(&self, fresh: &Fresh<'_>) -> Result<Vec<PathBuf>, GitError> {
        self.fill_within(fresh, &mut Budget::default()).await
    }

    /// The same for a submodule.
    pub(super) async fn fill_within(
        &self,
        fresh: &Fresh<'_>,
        budget: &mut Budget,
    ) -> Result<Vec<PathBuf>, GitError> {
        if fresh.parts.lfs {
            self.fill_lfs(fresh).await?;
        }
        if fresh.parts.submodules {
            return self.fill_submodules(fresh, budget).await;
        }
        Ok(Vec::new())
    }
}
