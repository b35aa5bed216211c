//! The cache of a repository: one bare mirror that every sandbox of it borrows objects from.
//!
//! Objects are never pruned from it, because sandboxes depend on them. A mirror that turns out to
//! be damaged is moved aside and made again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Advertised, Git, GitError, History, Remote, blocking, cache, lock::FileLock, removal};

/// Left in a cache folder by whoever finds the mirror damaged; the next refresh acts on it.
const SUSPECT: &str = "suspect";
/// Where a clone is made before it is the mirror.
pub(super) const STAGING: &str = "staging.git";
/// Where a damaged mirror is moved.
pub(super) const DAMAGED: &str = "damaged.git";

/// A cache that holds what the remote had at the time of the refresh.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// The bare repository.
    pub path: PathBuf,
    /// The repository it is a copy of.
    pub remote: Remote,
    /// How much of it.
    pub history: History,
    /// The remote's default branch.
    pub default_branch: String,
    /// Every branch that the remote had.
    pub branches: Arc<BTreeSet<String>>,
    /// What it took.
    pub transfer: Transfer,
}

/// How much a refresh had to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// Everything: the cache was made.
    Cloned,
    /// What was new.
    Fetched,
    /// Nothing at all.
    UpToDate,
}

/// How a mirror compares with what its remote advertises.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Absent,
    Damaged,
    Behind,
    Current,
}

impl Git {
    /// Makes the cache of a repository with all its history, or brings it up to date when the remote has
    /// something new.
    pub async fn refresh_mirror(&self, remote: &Remote) -> Result<Mirror, GitError> {
        self.refresh_mirror_of(remote, History::Full).await
    }

    /// The same with as much history as is wanted; each has a cache of its own.
    #[tracing::instrument(name = "git.refresh", skip_all, fields(url = %remote.url, ?history))]
    pub async fn refresh_mirror_of(
        &self,
        remote: &Remote,
        history: History,
    ) -> Result<Mirror, GitError> {
        let advertised = self.verify(remote).await?;
        let folder = self.volume().mirror_folder(&remote.url, history);
        let path = folder.join("mirror.git");
        cache::note_use(&folder).await?;
        let branches: Arc<BTreeSet<String>> =
            Arc::new(advertised.branches.keys().cloned().collect());
        let mirror = |transfer| Mirror {
            path: path.clone(),
            remote: remote.clone(),
            history,
            default_branch: advertised.default_branch.clone(),
            branches: Arc::clone(&branches),
            transfer,
        };
        if state(&path, &advertised).await? == State::Current {
            return Ok(mirror(Transfer::UpToDate));
        }
        let lock = FileLock::acquire(folder.join("lock"), self.settings().lock_timeout).await?;
        let new = mirror(Transfer::Cloned);
        let transfer = match state(&path, &advertised).await? {
            // Somebody else did it while we waited.
            State::Current => return Ok(mirror(Transfer::UpToDate)),
            State::Absent => self.clone_mirror(&new, &lock).await?,
            State::Damaged => self.replace_mirror(&new, &lock).await?,
            State::Behind => match self.fetch_mirror(&new, &lock).await {
                Ok(transfer) => transfer,
                Err(GitError::DamagedCache { .. }) => self.replace_mirror(&new, &lock).await?,
                Err(error) => return Err(error),
            },
        };
        // A fetch over a damaged store can succeed and still leave holes.
        let transfer = match state(&path, &advertised).await? {
            State::Damaged if transfer == Transfer::Fetched => {
                self.replace_mirror(&new, &lock).await?
            }
            _ => transfer,
        };
        tracing::info!(?transfer, "repository cache refreshed");
        Ok(mirror(transfer))
    }

    async fn clone_mirror(&self, new: &Mirror, lock: &FileLock) -> Result<Transfer, GitError> {
        let Mirror { path, remote, history, .. } = new;
        let staging = path.with_file_name(STAGING);
        let leftover = staging.clone();
        blocking(move || removal::delete(&leftover)).await?;
        let cloned = self
            .invoke("clone")
            .args(["--bare", "--quiet", "--template="])
            .args(["-c", "gc.auto=0", "-c", "gc.pruneExpire=never", "-c", "maintenance.auto=false"])
            .args(match history {
                History::Full => &[][..],
                // Each tag would bring the files of its commit.
                History::Shallow => &["--depth=1", "--no-single-branch", "--no-tags"],
            })
            .args(["--", remote.url.clone_url()])
            .arg(&staging)
            .with_remote(remote)
            .holding(lock)
            .check()
            .await;
        let path = path.to_owned();
        blocking(move || {
            if let Err(error) = cloned {
                removal::delete(&staging)?;
                return Err(error);
            }
            std::fs::rename(&staging, &path).map_err(GitError::file("publish the cache", &path))?;
            Ok(Transfer::Cloned)
        })
        .await
    }

    async fn fetch_mirror(&self, new: &Mirror, lock: &FileLock) -> Result<Transfer, GitError> {
        let Mirror { path, remote, history, .. } = new;
        let mirror = path.clone();
        blocking(move || sweep(&mirror)).await?;
        let (options, names) = match history {
            History::Full => {
                (&[][..], &["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"][..])
            }
            // Without a depth, a branch that starts before our first commits would bring its whole history.
            History::Shallow => (&["--depth=1"][..], &["+refs/heads/*:refs/heads/*"][..]),
        };
        self.invoke("fetch")
            .args(["--quiet", "--prune", "--no-tags", "--no-write-fetch-head"])
            .args(options)
            .args(["--", remote.url.clone_url()])
            .args(names)
            .within(path)
            .with_remote(remote)
            .holding(lock)
            .check()
            .await?;
        Ok(Transfer::Fetched)
    }

    /// Moves a damaged mirror aside (one is kept, for a look at what happened) and clones again.
    async fn replace_mirror(&self, new: &Mirror, lock: &FileLock) -> Result<Transfer, GitError> {
        let path = &new.path;
        tracing::warn!(path = %path.display(), "repository cache is damaged, making it again");
        let mirror = path.clone();
        blocking(move || {
            let aside = mirror.with_file_name(DAMAGED);
            removal::delete(&aside)?;
            match std::fs::rename(&mirror, &aside) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(GitError::file("move aside", &mirror)(error));
                }
                _ => {}
            }
            removal::delete(&mirror.with_file_name(SUSPECT))
        })
        .await?;
        self.clone_mirror(new, lock).await
    }
}

/// Has the next refresh make the mirror again.
pub(super) async fn suspect(mirror: &Path) {
    let note = mirror.with_file_name(SUSPECT);
    if let Err(error) = tokio::fs::write(&note, b"").await {
        tracing::warn!(%error, path = %note.display(), "cannot mark the repository cache as damaged");
    }
}

async fn state(path: &Path, advertised: &Advertised) -> Result<State, GitError> {
    let (path, advertised) = (path.to_owned(), advertised.clone());
    blocking(move || Ok(compare(&path, &advertised))).await
}

fn compare(path: &Path, advertised: &Advertised) -> State {
    if !path.exists() {
        return State::Absent;
    }
    if path.with_file_name(SUSPECT).exists() {
        return State::Damaged;
    }
    let Ok(repository) = git2::Repository::open_bare(path) else { return State::Damaged };
    let Ok(branches) = branches(&repository) else { return State::Damaged };
    if branches != advertised.branches {
        return State::Behind;
    }
    let readable = |sha: &String| {
        let commit = git2::Oid::from_str(sha).and_then(|id| repository.find_commit(id));
        commit.and_then(|commit| commit.tree()).is_ok()
    };
    match branches.get(&advertised.default_branch) {
        Some(sha) if readable(sha) => State::Current,
        _ => State::Damaged,
    }
}

fn branches(repository: &git2::Repository) -> Result<BTreeMap<String, String>, git2::Error> {
    let mut branches = BTreeMap::new();
    for reference in repository.references_glob("refs/heads/*")? {
        let reference = reference?;
        if let (Ok(name), Some(target)) = (reference.name(), reference.target()) {
            let name = name.strip_prefix("refs/heads/").unwrap_or(name);
            branches.insert(name.to_owned(), target.to_string());
        }
    }
    Ok(branches)
}

/// Removes what a killed git left in a mirror. The caller holds the lock, and so did that git until
/// its last process was gone: nobody else is writing.
pub(super) fn sweep(mirror: &Path) -> Result<(), GitError> {
    let mut folders = vec![mirror.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if name.starts_with("tmp_") || name.ends_with(".lock") {
                removal::delete(&path)?;
            } else if is_folder && (name.len() != 2 || !folder.ends_with("objects")) {
                folders.push(path);
            }
        }
    }
    Ok(())
}
