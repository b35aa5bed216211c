//! Makes a sandbox that is gone again, with the work that was pushed from it.

use git2::{Oid, Repository};

use super::{Git, GitError, Mirror, Plan, Sandbox, ancestry::builds_on, blocking, bundle::Header};
use crate::domain::{BranchName, WorkOrderId};

impl Git {
    /// Makes the sandbox of an order anew, on the first of `pushed` (commits of ours, newest first) that
    /// is on the order's branch of the remote; `None` when none of them is. `base_commit` is the commit the
    /// order had started from. A sandbox that is complete is kept as it is.
    #[tracing::instrument(name = "git.rebuild_sandbox", skip_all, fields(order = %order))]
    pub async fn rebuild_sandbox(
        &self,
        mirror: &Mirror,
        order: &WorkOrderId,
        branch: &BranchName,
        plan: &Plan,
        base_commit: &str,
        pushed: &[String],
    ) -> Result<Option<Sandbox>, GitError> {
        if let Some(sandbox) = self.find_sandbox(order, &mirror.remote.url).await? {
            return Ok(Some(sandbox));
        }
        self.fetch_work(mirror, branch, base_commit, pushed.len()).await?;
        let (path, name) = (mirror.path.clone(), branch.full_ref());
        let (base_commit, pushed) = (base_commit.to_owned(), pushed.to_vec());
        let header = blocking(move || {
            let repository = Repository::open_bare(&path)
                .map_err(GitError::library("open the repository cache"))?;
            Ok(first_on_branch(&repository, &name, &base_commit, &pushed))
        });
        let Some(header) = header.await? else { return Ok(None) };
        let note = self.begin_restore(order).await?;
        let (sandbox, lock) = self.make_empty(mirror, order, branch, plan).await?;
        // The objects of the cache are there already.
        let (made, head) = (sandbox.clone(), header.head.clone());
        blocking(move || made.point_branch(&head)).await?;
        self.adopt(sandbox, mirror, plan, &header, &note, lock).await.map(Some)
    }
}

impl Sandbox {
    /// Moves the branch of the trusted repository.
    fn point_branch(&self, sha: &str) -> Result<(), GitError> {
        let write = || {
            let repository = Repository::open_bare(&self.trusted)?;
            let name = self.branch.full_ref();
            repository.reference(&name, Oid::from_str(sha)?, true, "rebuilt by archon-awo")?;
            Ok(())
        };
        write().map_err(GitError::library("put the branch on what was pushed"))
    }
}

/// The first of `pushed` that the branch leads to, with the base it builds on.
fn first_on_branch(
    repository: &Repository,
    branch: &str,
    base: &str,
    pushed: &[String],
) -> Option<Header> {
    let head = repository.refname_to_id(branch).ok()?;
    let from = Oid::from_str(base).ok()?;
    let above = |upper, lower| builds_on(repository, upper, lower);
    let found = pushed
        .iter()
        .find(|sha| Oid::from_str(sha).is_ok_and(|sha| above(head, sha) && above(sha, from)))?;
    Some(Header { base: base.to_owned(), head: found.clone(), files: found.clone() })
}
