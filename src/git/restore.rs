//! Makes a sandbox that is gone again, with the work its bundle holds.

use std::{
    fs,
    path::{Path, PathBuf},
};

use git2::{Oid, Repository, build::CheckoutBuilder};

use super::{
    Git, GitError, Mirror, Plan, Sandbox, blocking,
    bundle::{FILES_REF, HEAD_REF, Header},
    lock::FileLock,
    worktree::Worktree,
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
        if let Some(sandbox) = self.find_sandbox(order, &mirror.url).await? {
            return Ok(sandbox);
        }
        let (file, path) = (bundle.to_owned(), mirror.path.clone());
        let header = blocking(move || {
            let header = Header::read(&file)?;
            require_commit(&path, &header.base, &file)?;
            Ok(header)
        })
        .await?;
        let note = self.begin_restore(order).await?;
        let sandbox = self.make_sandbox(mirror, order, branch, &plan.into()).await?;
        let lock = self.lock_order(order).await?;
        self.verify_bundle(&sandbox, bundle, &lock).await?;
        self.unpack(&sandbox, &sandbox.trusted, &header, bundle, &lock).await?;
        // No agent has run in this checkout: it was made a moment ago, by us.
        self.unpack(&sandbox, &sandbox.checkout.join(".git"), &header, bundle, &lock).await?;
        blocking(move || sandbox.adopt(&header, &note, lock)).await
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
    /// Makes the files and the record of a fresh sandbox those of `header`, whose commits both of its
    /// repositories have, and ends the restore.
    pub(super) fn adopt(
        mut self,
        header: &Header,
        note: &Path,
        lock: FileLock,
    ) -> Result<Self, GitError> {
        self.base_commit.clone_from(&header.base);
        let worktree = Worktree::open(&self)?;
        let write = || {
            let files = worktree.repository.find_commit(Oid::from_str(&header.files)?)?;
            let mut options = CheckoutBuilder::new();
            // The checkout holds what the cache has now; everything else goes.
            options.force().remove_untracked(true).remove_ignored(true);
            worktree.repository.checkout_tree(files.as_object(), Some(&mut options))?;
            // For the agent, the branch is what is committed and the rest is not.
            let own = Repository::open(&self.checkout)?;
            let branch = self.branch.full_ref();
            own.reference(&branch, Oid::from_str(&header.head)?, true, "restored by archon-awo")?;
            own.find_reference(FILES_REF)?.delete()?;
            let head = own.find_commit(Oid::from_str(&header.head)?)?;
            let mut index = own.index()?;
            index.read_tree(&head.tree()?)?;
            index.write()
        };
        write().map_err(GitError::library("restore the files of the agent"))?;
        self.rewrite_record()?;
        fs::remove_file(note).map_err(GitError::file("remove", note))?;
        drop(lock);
        Ok(self)
    }
}

fn require_commit(mirror: &PathBuf, base: &str, bundle: &Path) -> Result<(), GitError> {
    let find = || {
        let repository = Repository::open_bare(mirror)?;
        repository.find_commit(Oid::from_str(base)?).map(drop)
    };
    find().map_err(|_| {
        GitError::Unusable(format!(
            "the work in {} builds on commit {base}, which the repository does not have any more: \
             fetch it from the bundle by hand, or start the order anew",
            bundle.display()
        ))
    })
}
