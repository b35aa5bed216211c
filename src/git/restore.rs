//! Makes a sandbox that is gone again, with the work its bundle holds.

use std::{
    fs,
    path::{Path, PathBuf},
};

use git2::{Oid, Repository};

use super::{
    Git, GitError, Mirror, Parts, Plan, Sandbox, blocking,
    bundle::{FILES_REF, HEAD_REF, Header},
    lock::FileLock,
    objects::borrow,
    parts::Fresh,
    shallow::has_commit,
    tree_size::weigh,
    worktree::forget_contents,
};
use crate::domain::{BranchName, WorkOrderId};

impl Git {
    /// Makes the sandbox of an order anew from the repository's cache and puts the work of `bundle`
    /// into it: the commits on its branch, the other files uncommitted. A sandbox that is complete
    /// is kept as it is, for it is newer than any bundle; one that a crash left half restored is not.
    ///
    /// The repository must still have the commit the order had started from.
    #[tracing::instrument(name = "git.restore_sandbox", skip_all, fields(order = %order))]
    pub async fn restore_sandbox(
        &self,
        mirror: &Mirror,
        order: &WorkOrderId,
        branch: &BranchName,
        plan: impl Into<Plan>,
        bundle: &Path,
    ) -> Result<Sandbox, GitError> {
        if let Some(sandbox) = self.find_sandbox(order, &mirror.remote.url).await? {
            return Ok(sandbox);
        }
        let file = bundle.to_owned();
        let header = blocking(move || Header::read(&file)).await?;
        self.fetch_commit(mirror, &header.base).await?;
        if !has_commit(mirror.path.clone(), header.base.clone()).await? {
            return Err(base_is_gone(&header.base, bundle));
        }
        let (plan, note) = (plan.into(), self.begin_restore(order).await?);
        let (sandbox, lock) = self.make_empty(mirror, order, branch, &plan).await?;
        self.verify_bundle(&sandbox, bundle, &lock).await?;
        self.unpack(&sandbox, &sandbox.trusted, &header, bundle, &lock).await?;
        // No agent has run in this checkout: it was made a moment ago, by us.
        self.unpack(&sandbox, &sandbox.checkout.join(".git"), &header, bundle, &lock).await?;
        self.adopt(sandbox, mirror, &plan, &header, &note, lock).await
    }

    /// Makes the sandbox without what would be fetched for files that are about to change.
    pub(super) async fn make_empty(
        &self,
        mirror: &Mirror,
        order: &WorkOrderId,
        branch: &BranchName,
        plan: &Plan,
    ) -> Result<(Sandbox, FileLock), GitError> {
        let parts = Parts { submodules: false, ..plan.parts.clone() };
        let bare = Plan { parts, ..plan.clone() };
        let sandbox = self.make_sandbox(mirror, order, branch, &bare).await?;
        Ok((sandbox, self.lock_order(order).await?))
    }

    /// Makes the files and the record of a fresh sandbox those of `header`, whose commits both of its
    /// repositories have, fetches what these files stand for, and ends the restore.
    pub(super) async fn adopt(
        &self,
        mut sandbox: Sandbox,
        mirror: &Mirror,
        plan: &Plan,
        header: &Header,
        note: &Path,
        lock: FileLock,
    ) -> Result<Sandbox, GitError> {
        sandbox.base_commit.clone_from(&header.base);
        sandbox.parts.clone_from(&plan.parts);
        let fresh = Fresh {
            mirror,
            form: plan.sandbox_type,
            parts: &plan.parts,
            folder: sandbox.checkout.clone(),
            lock: &lock,
        };
        let (git_dir, files) = (fresh.git_dir(), header.files.clone());
        let weighed = blocking(move || {
            let library = || GitError::library("read the commit to restore");
            let repository = Repository::open_bare(&git_dir).map_err(library())?;
            weigh(&repository, Oid::from_str(&files).map_err(library())?)
        });
        let weight = weighed.await?;
        if fresh.parts.sparse.is_empty() {
            self.require_room(&format!("the commit {}", header.files), weight.bytes)?;
        }
        let written = self
            .invoke("read-tree")
            .args(["--reset", "-u", &header.files])
            .within(&fresh.git_dir())
            .over(&fresh.folder)
            .holding(&lock)
            .ending_with_us()
            .check();
        self.within_quota(&fresh.folder, weight, written).await?;
        let borrowed = self.fill(&fresh).await?;
        let (restored, head) = (sandbox.clone(), header.head.clone());
        blocking(move || restored.settle(&head, &borrowed)).await?;
        // For the agent, the branch is what is committed and the rest is not.
        self.invoke("read-tree")
            .args(["--reset", &header.head])
            .within(&fresh.git_dir())
            .over(&fresh.folder)
            .holding(&lock)
            .check()
            .await?;
        let note = note.to_owned();
        blocking(move || {
            sandbox.rewrite_record()?;
            fs::remove_file(&note).map_err(GitError::file("remove", &note))?;
            drop(lock);
            Ok(sandbox)
        })
        .await
    }

    /// Leaves the note of a restore: as long as it is there, the sandbox counts as not complete.
    pub(super) async fn begin_restore(&self, order: &WorkOrderId) -> Result<PathBuf, GitError> {
        let note = self.volume().restoring(order);
        blocking(move || {
            if let Some(folder) = note.parent() {
                fs::create_dir_all(folder).map_err(GitError::file("make the folder", folder))?;
            }
            fs::write(&note, b"").map_err(GitError::file("write", &note))?;
            Ok(note)
        })
        .await
    }

    /// Fetches the bundle into one of the two repositories of a sandbox, onto its branch.
    async fn unpack(
        &self,
        sandbox: &Sandbox,
        repository: &Path,
        header: &Header,
        bundle: &Path,
        lock: &FileLock,
    ) -> Result<(), GitError> {
        let fetch = self
            .invoke("fetch")
            .args(["--quiet", "--no-tags", "--no-write-fetch-head", "--update-head-ok", "--"])
            .arg(bundle)
            .arg(format!("+{FILES_REF}:{FILES_REF}"));
        let fetch = if header.head == header.base {
            fetch
        } else {
            fetch.arg(format!("+{HEAD_REF}:{}", sandbox.branch.full_ref()))
        };
        fetch.within(repository).holding(lock).check().await.map(drop)
    }
}

impl Sandbox {
    /// Puts the branch of the checkout on `head`, and makes what its index knows of the files known to the
    /// trusted repository too.
    fn settle(&self, head: &str, borrowed: &[PathBuf]) -> Result<(), GitError> {
        borrow(&self.trusted, borrowed)?;
        let (seen, known) = (self.checkout.join(".git/index"), self.trusted.join("index"));
        fs::copy(&seen, &known).map_err(GitError::file("copy the index to", &known))?;
        let write = || {
            let own = Repository::open(&self.checkout)?;
            let head = Oid::from_str(head)?;
            own.reference(&self.branch.full_ref(), head, true, "restored by archon-awo")?;
            match own.find_reference(FILES_REF) {
                Ok(mut reference) => reference.delete(),
                Err(_) => Ok(()),
            }
        };
        write().map_err(GitError::library("restore the branch of the agent"))?;
        if self.parts.lfs { forget_contents(&self.open_trusted()?) } else { Ok(()) }
    }
}

fn base_is_gone(base: &str, bundle: &Path) -> GitError {
    GitError::Unusable(format!(
        "the work in {} builds on commit {base}, which the repository does not have any more: \
         fetch it from the bundle by hand, or start the order anew",
        bundle.display()
    ))
}
