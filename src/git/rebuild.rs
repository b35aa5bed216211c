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
        blocking(move || {
            let write = || {
                let repository = Repository::open_bare(&made.trusted)?;
                made.point_branch(&repository, Oid::from_str(&head)?, "rebuilt by archon-awo")
            };
            write().map_err(GitError::library("put the branch on what was pushed"))
        })
        .await?;
        self.adopt(sandbox, mirror, plan, &header, &note, lock).await.map(Some)
    }
}

impl Git {
    /// Makes a sandbox on a commit of an order's branch, for what the order left there and nowhere else. It
    /// counts as one from before the order began anew.
    pub async fn sandbox_of_branch(
        &self,
        mirror: &Mirror,
        order: &WorkOrderId,
        branch: &BranchName,
        plan: &Plan,
        head: &str,
    ) -> Result<Option<Sandbox>, GitError> {
        let base = plan.base.as_ref().map_or(mirror.default_branch.as_str(), BranchName::as_str);
        let command = self.invoke("merge-base").args([head, &format!("refs/heads/{base}")]);
        let found = command.within(&mirror.path).run().await?;
        if !found.status.success() {
            return Ok(None);
        }
        let (base, plan) =
            (found.stdout.trim(), Plan { restarts: plan.restarts - 1, ..plan.clone() });
        self.rebuild_sandbox(mirror, order, branch, &plan, base, &[head.to_owned()]).await
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
