//! Makes a sandbox that is gone again, with the work that was pushed from it.

use git2::{Oid, Repository};

use super::{Git, GitError, Mirror, Plan, Sandbox, blocking, bundle::FILES_REF, bundle::Header};
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
        if let Some(sandbox) = self.find_sandbox(order, &mirror.url).await? {
            return Ok(Some(sandbox));
        }
        let (path, name) = (mirror.path.clone(), branch.full_ref());
        let (base_commit, pushed) = (base_commit.to_owned(), pushed.to_vec());
        let header = blocking(move || {
            let repository = Repository::open_bare(&path)
                .map_err(GitError::library("open the repository cache"))?;
            Ok(first_on_branch(&repository, &name, &base_commit, &pushed))
        });
        let Some(header) = header.await? else { return Ok(None) };
        let note = self.begin_restore(order).await?;
        let sandbox = self.make_sandbox(mirror, order, branch, plan).await?;
        let lock = self.lock_order(order).await?;
        // No agent has run in this checkout: it was made a moment ago, by us.
        for repository in [sandbox.trusted.clone(), sandbox.checkout.join(".git")] {
            self.invoke("fetch")
                .args(["--quiet", "--no-tags", "--no-write-fetch-head", "--"])
                .arg(&mirror.path)
                .arg(format!("+{}:{FILES_REF}", branch.full_ref()))
                .within(&repository)
                .holding(&lock)
                .check()
                .await?;
        }
        blocking(move || {
            sandbox.point_branch(&header.head)?;
            sandbox.adopt(&header, &note, lock).map(Some)
        })
        .await
    }
}

impl Sandbox {
    /// Moves the branch of the trusted repository.
    fn point_branch(&self, sha: &str) -> Result<(), GitError> {
        let write = || {
            let repository = Repository::open_bare(&self.trusted)?;
            let name = self.branch.full_ref();
            repository.reference(&name, Oid::from_str(sha)?, true, "rebuilt by archon-awo")?;
            repository.find_reference(FILES_REF)?.delete()
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
    let above = |upper: Oid, lower: Oid| {
        upper == lower || repository.graph_descendant_of(upper, lower).unwrap_or(false)
    };
    let found = pushed
        .iter()
        .find(|sha| Oid::from_str(sha).is_ok_and(|sha| above(head, sha) && above(sha, from)))?;
    Some(Header { base: base.to_owned(), head: found.clone(), files: found.clone() })
}
