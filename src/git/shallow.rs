//! Fetches what a cache without history lacks for the work of an order that goes on.

use std::path::PathBuf;

use git2::{Oid, Repository};

use super::{Git, GitError, History, Mirror, blocking, lock::FileLock};
use crate::domain::BranchName;

/// Commits that are fetched of an order's branch beyond those that we pushed: others may have added theirs.
const BEYOND: usize = 20;

impl Git {
    /// Makes sure that the cache has a commit that no branch may lead to any more. A remote that does not
    /// give it away is no error here: whoever needs the commit says so.
    pub(super) async fn fetch_commit(&self, mirror: &Mirror, sha: &str) -> Result<(), GitError> {
        if has_commit(mirror.path.clone(), sha.to_owned()).await? {
            return Ok(());
        }
        // Kept by a name, or a later packing of the cache would have to guess that it is wanted.
        let name = format!("+{sha}:refs/awo/wanted/{sha}");
        let fetched = match mirror.history {
            History::Full => self.fetch_into(mirror, &[], &name).await,
            History::Shallow => self.fetch_into(mirror, &["--depth=1"], &name).await,
        };
        match fetched {
            Err(error @ (GitError::Failed { .. } | GitError::NotFound { .. })) => {
                tracing::debug!(%error, sha, "the remote does not give this commit away");
                Ok(())
            }
            other => other,
        }
    }

    /// Makes sure that the cache has the commits between `base` and the head of an order's branch, to
    /// which we pushed `pushed` commits.
    pub(super) async fn fetch_work(
        &self,
        mirror: &Mirror,
        branch: &BranchName,
        base: &str,
        pushed: usize,
    ) -> Result<(), GitError> {
        self.fetch_commit(mirror, base).await?;
        if mirror.history == History::Full {
            return Ok(());
        }
        let depth = format!("--depth={}", pushed + BEYOND);
        let name = branch.full_ref();
        match self.fetch_into(mirror, &[&depth], &format!("+{name}:{name}")).await {
            // There is no such branch (any more).
            Err(GitError::Failed { .. }) => Ok(()),
            other => other,
        }
    }

    async fn fetch_into(
        &self,
        mirror: &Mirror,
        options: &[&str],
        names: &str,
    ) -> Result<(), GitError> {
        let file = mirror.path.with_file_name("lock");
        let lock = FileLock::acquire(file, self.settings().lock_timeout).await?;
        self.invoke("fetch")
            .args(["--quiet", "--no-tags", "--no-write-fetch-head"])
            .args(options)
            .args(["--", mirror.remote.url.clone_url(), names])
            .within(&mirror.path)
            .with_remote(&mirror.remote)
            .holding(&lock)
            .check()
            .await
            .map(drop)
    }
}

/// Whether a repository has a commit with its files.
pub(super) async fn has_commit(repository: PathBuf, sha: String) -> Result<bool, GitError> {
    blocking(move || {
        let repository = Repository::open_bare(&repository)
            .map_err(GitError::library("open the repository cache"))?;
        let found = Oid::from_str(&sha).and_then(|id| repository.find_commit(id)?.tree());
        Ok(found.is_ok())
    })
    .await
}
