//! Takes the sandbox of an ended order away, step by step, so that a caller can look at the order in
//! between: claim, save, move to the trash, and then either delete or put back.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Bundle, Git, GitError, Remote, blocking, lock::FileLock, removal::is_ours, tidy::changed,
};
use crate::{
    disk::{Deleted, Hold, touch, trash},
    domain::{RepositoryUrl, WorkOrderId},
};

/// Something of an order that lies on the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSandbox {
    /// The order.
    pub order: WorkOrderId,
    /// How long ago its folders were last changed, by the clock of their file system.
    pub untouched: Duration,
    /// Whether archon-awo made them; what it did not make is never removed.
    pub ours: bool,
    /// Which of the orders with this id it belongs to, where that is recorded.
    pub generation: Option<i64>,
}

/// The exclusive right to take away the sandbox of one order. While it is held, nobody opens, makes or
/// finds that sandbox; it ends with the process.
#[derive(Debug)]
pub struct Claim {
    git: Git,
    order: WorkOrderId,
    lock: FileLock,
}

/// The right to upload what lies in the sandbox of one order, for which it is not locked.
#[derive(Debug)]
pub struct Upload {
    lock: FileLock,
}

/// A sandbox in the trash that may still be put back.
#[derive(Debug)]
pub struct Discarded {
    claim: Claim,
    moved: Vec<Moved>,
}

#[derive(Debug)]
struct Moved {
    from: PathBuf,
    to: PathBuf,
    /// The lock of the folder: nobody else takes it for somebody's leftover.
    held: Option<OwnedFd>,
}

/// What was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files and folders that are gone.
    pub entries: u64,
    /// Entries that could not be deleted and lie in the trash.
    pub kept: u64,
    /// Why the first of them could not.
    pub reason: Option<String>,
}

impl Git {
    /// What lies on the volume of orders, ended or not.
    #[tracing::instrument(name = "git.found_sandboxes", skip_all)]
    pub async fn found_sandboxes(&self) -> Result<Vec<FoundSandbox>, GitError> {
        self.prepare().await?;
        let (git, volume) = (self.clone(), self.volume().clone());
        blocking(move || {
            let note = volume.tidied();
            touch(&note).map_err(GitError::file("write", &note))?;
            let now = changed(&note).unwrap_or_default();
            let mut found: BTreeMap<String, WorkOrderId> = BTreeMap::new();
            let mut see = |name: &str| {
                if let Ok(order) = name.parse::<WorkOrderId>() {
                    found.insert(name.to_owned(), order);
                }
            };
            for name in names(volume.root())? {
                if let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) {
                    see(name);
                }
            }
            for name in names(&volume.trusted_folder())? {
                if let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".git")) {
                    see(name);
                }
            }
            Ok(found
                .into_values()
                .map(|order| {
                    let (sandbox, trusted) = (volume.sandbox(&order), volume.trusted(&order));
                    let newest = [changed(&sandbox), changed(&trusted)].into_iter().flatten().max();
                    let untouched = newest.map_or(Duration::ZERO, |at| now.saturating_sub(at));
                    let generation = git.recorded(&order).and_then(|(found, _)| found.generation);
                    FoundSandbox { untouched, ours: is_ours(&sandbox, &trusted), generation, order }
                })
                .collect())
        })
        .await
    }

    /// The repository of an order, as its sandbox remembers it.
    pub async fn recorded_url(
        &self,
        order: &WorkOrderId,
    ) -> Result<Option<RepositoryUrl>, GitError> {
        let (git, order) = (self.clone(), order.clone());
        blocking(move || Ok(git.recorded(&order).map(|(_, url)| url))).await
    }

    /// Which of the orders with this id the sandbox belongs to; `None` when there is none, or it is not
    /// recorded.
    pub async fn recorded_generation(&self, order: &WorkOrderId) -> Result<Option<i64>, GitError> {
        let (git, order) = (self.clone(), order.clone());
        blocking(move || Ok(git.recorded(&order).and_then(|(sandbox, _)| sandbox.generation))).await
    }

    /// Claims the sandbox of an order; `None` when somebody holds it: another process that takes it
    /// away, a git that works on it, an agent that lives.
    pub async fn claim_sandbox(&self, order: &WorkOrderId) -> Result<Option<Claim>, GitError> {
        self.prepare().await?;
        let (git, order) = (self.clone(), order.clone());
        blocking(move || {
            let Some(lock) = FileLock::attempt(&git.volume().order_lock(&order))? else {
                return Ok(None);
            };
            // An agent may have put something else in its place; then the order's state has to do.
            let free = FileLock::is_free(&git.volume().agent_lock(&order)).unwrap_or(true);
            Ok(free.then_some(Claim { git, order, lock }))
        })
        .await
    }

    /// Deletes what lies in the trash and nobody is deleting.
    #[tracing::instrument(name = "git.empty_trash", skip_all)]
    pub async fn empty_trash(&self) -> Result<Removed, GitError> {
        let trash = self.volume().trash();
        blocking(move || {
            let mut removed = Removed::default();
            trash::empty(&trash, |deleted| removed.add(&deleted))
                .map_err(GitError::file("empty", &trash))?;
            Ok(removed)
        })
        .await
    }
}

impl Claim {
    pub(super) fn git(&self) -> &Git {
        &self.git
    }

    pub(super) fn order(&self) -> &WorkOrderId {
        &self.order
    }

    /// Saves the unpushed work as [`Git::save_unpushed`] does.
    pub async fn save(
        &self,
        remote: Option<&Remote>,
        folder: &Path,
    ) -> Result<Option<Bundle>, GitError> {
        self.git.save_held(&self.order, remote, folder, &self.lock).await
    }

    /// Lets go of the sandbox for an upload of it; `None` when another process uploads it. The agent's
    /// files may change meanwhile, so the sandbox must be claimed and judged again after it.
    pub async fn begin_upload(self) -> Result<Option<Upload>, GitError> {
        blocking(move || {
            let lock = FileLock::attempt(&self.git.volume().upload_lock(&self.order))?;
            Ok(lock.map(|lock| Upload { lock }))
        })
        .await
    }

    /// Moves everything of the order to the trash. A sandbox that is not ours is refused.
    pub async fn discard(self) -> Result<Discarded, GitError> {
        blocking(move || {
            let volume = self.git.volume().clone();
            let (sandbox, trusted) = (volume.sandbox(&self.order), volume.trusted(&self.order));
            if !is_ours(&sandbox, &trusted) {
                return Err(GitError::NotASandbox { path: sandbox });
            }
            let mut discarded = Discarded { claim: self, moved: Vec::new() };
            for (from, kind) in [(sandbox, "sandbox"), (trusted, "trusted")] {
                let name =
                    format!("{}.{kind}.{}", discarded.claim.order, uuid::Uuid::new_v4().simple());
                let to = volume.trash().join(name);
                // Taken before the move: in the trash, what nobody holds is anybody's.
                let held = match trash::hold(&from) {
                    Hold::Ours(lock) => Some(lock),
                    Hold::Busy | Hold::Impossible => None,
                };
                match rename(&from, &to, held.as_ref()) {
                    Ok(()) => discarded.moved.push(Moved { from, to, held }),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        discarded.restore()?;
                        return Err(GitError::file("move to the trash", &from)(error));
                    }
                }
            }
            Ok(discarded)
        })
        .await
    }
}

impl Upload {
    /// Ends with the upload.
    pub async fn end(self) -> Result<(), GitError> {
        blocking(move || {
            let path = self.lock.path().to_owned();
            self.lock.remove().map_err(GitError::file("remove", &path))
        })
        .await
    }
}

impl Discarded {
    /// Whether there was nothing: somebody else took it away before the claim.
    pub fn is_empty(&self) -> bool {
        self.moved.is_empty()
    }

    /// Whether no agent came in before the sandbox was moved away.
    pub async fn is_free(&self) -> Result<bool, GitError> {
        let locks: Vec<PathBuf> = self.moved.iter().map(|moved| moved.to.join(".lock")).collect();
        blocking(move || Ok(locks.iter().all(|lock| FileLock::is_free(lock).unwrap_or(true)))).await
    }

    /// Puts everything back where it was.
    pub async fn put_back(mut self) -> Result<(), GitError> {
        blocking(move || self.restore()).await
    }

    /// Lets the order have a new sandbox, and deletes the old one.
    pub async fn delete(self) -> Result<Removed, GitError> {
        blocking(move || {
            let Self { claim, moved } = self;
            let lock = claim.git.volume().order_lock(&claim.order);
            claim.lock.remove().map_err(GitError::file("remove", &lock))?;
            let mut removed = Removed::default();
            for Moved { to, held, .. } in moved {
                // With the lock of the folder nobody else is at it.
                let deleted = match held {
                    Some(_) => trash::delete(&to).map(Some),
                    None => trash::clear(&to),
                };
                let deleted = deleted.map_err(GitError::file("delete", &to))?;
                removed.add(&deleted.unwrap_or_default());
            }
            Ok(removed)
        })
        .await
    }

    /// The trusted repository first: with it alone, the sandbox is a clean absence.
    fn restore(&mut self) -> Result<(), GitError> {
        while let Some(Moved { from, to, .. }) = self.moved.pop() {
            fs::rename(&to, &from).map_err(GitError::file("put back", &from))?;
        }
        Ok(())
    }
}

impl Removed {
    fn add(&mut self, deleted: &Deleted) {
        self.entries += deleted.files + deleted.folders;
        self.kept += deleted.kept;
        if let (None, Some((path, error))) = (&self.reason, deleted.told.first()) {
            self.reason = Some(format!("cannot delete {}: {error}", path.display()));
        }
    }
}

/// Moves a folder; its owner may have to be allowed to write in it, for it gets another parent.
fn rename(from: &Path, to: &Path, folder: Option<&OwnedFd>) -> io::Result<()> {
    match (fs::rename(from, to), folder) {
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::PermissionDenied => {
            rustix::fs::fchmod(folder, rustix::fs::Mode::RWXU)?;
            fs::rename(from, to)
        }
        (other, _) => other,
    }
}

fn names(folder: &Path) -> Result<Vec<OsString>, GitError> {
    let failed = || GitError::file("read the folder", folder);
    let read = fs::read_dir(folder).map_err(failed())?;
    read.map(|entry| entry.map(|entry| entry.file_name()).map_err(failed())).collect()
}
