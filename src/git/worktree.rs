//! Turns the agent's files into a tree, trusting nothing that the agent wrote about them.
//!
//! The checkout's own `.git` is never opened: the index, the configuration and the objects are those of the
//! trusted repository. Files and rules are read by us, as bytes: nothing of the agent's runs, links are
//! stored and never followed, and what is in no commit is named.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use git2::{Index, IndexEntry, Oid, Repository};

use super::{
    GitError, Parts, Sandbox,
    error::library_is_full,
    index_entry::{self, EXECUTABLE, PLAIN, SUBMODULE},
    intake::{Intake, Taken},
    left_out::{LeftOut, Reason},
    lfs, ports_file,
    reading::Reading,
    rules::{Outside, Rules},
    sparse::Cone,
    submodule_changes::Submodules,
    walk::{Found, Walk},
};
use crate::disk::Beneath;

/// The most a commit may add or change, in MiB. Far above what a forge takes in one file.
const LIMIT_MIB: u64 = 2048;

/// The trusted repository, and the agent's files.
pub(super) struct Worktree<'r> {
    pub(super) repository: Repository,
    pub(super) top: Beneath,
    reading: &'r Reading,
    parts: Parts,
    excludes: Option<PathBuf>,
}

/// The files of an agent as objects.
pub(super) struct Staged {
    /// What a commit of them holds.
    pub(super) tree: Oid,
    /// What it does not hold.
    pub(super) left_out: LeftOut,
    /// Why there may be no such commit. The tree is good for a look at the files and to save them.
    pub(super) refused: Option<GitError>,
}

impl<'r> Worktree<'r> {
    /// Opens the trusted repository of a sandbox. The caller holds the lock of the order.
    pub(super) fn open(sandbox: &Sandbox, reading: &'r Reading) -> Result<Self, GitError> {
        let top = sandbox.files()?;
        reading.bound(sandbox.git.settings().rule_work);
        let repository = sandbox.open_trusted()?;
        let parts = sandbox.parts.clone();
        let excludes = sandbox.git.settings().excludes.clone();
        Ok(Self { repository, top, reading, parts, excludes })
    }

    /// Stores the agent's files as objects and returns their tree.
    pub(super) fn stage(&self, head: &git2::Commit<'_>) -> Result<Staged, GitError> {
        // Left by a process that was killed; the lock of the order says that it is gone.
        let _ = fs::remove_file(self.repository.path().join("index.lock"));
        let mut index = self.repository.index().map_err(library())?;
        Self::reset(&mut index, head).map_err(library())?;
        let tracked: Vec<IndexEntry> = index.iter().collect();
        let mut found = self.walk(&index, &tracked)?;
        if found.bytes > LIMIT_MIB << 20 {
            let found_mib = found.bytes >> 20;
            return Err(GitError::TooMuch { found_mib, limit_mib: LIMIT_MIB });
        }
        // What was not checked out was not removed.
        let cone = Cone::of(&self.parts.sparse);
        let is_here = |entry: &&IndexEntry| entry.mode != SUBMODULE && cone.holds(&entry.path);
        for entry in tracked.iter().filter(is_here).filter(|entry| found.lacks(&entry.path)) {
            index.remove(path_of(&entry.path), 0).map_err(library())?;
        }
        self.add(&mut index, &mut found)?;
        let submodules = Submodules {
            repository: &self.repository,
            checkout: &self.top,
            reading: self.reading,
            filled: self.parts.submodules,
        };
        let links =
            tracked.iter().filter(|entry| entry.mode == SUBMODULE && cone.holds(&entry.path));
        submodules.look(links, &mut found.left_out)?;
        let tree = index.write_tree().map_err(library())?;
        index.write().map_err(library())?;
        let Found { left_out, refused, .. } = found;
        Ok(Staged { tree, left_out, refused })
    }

    /// Has the index know what the branch has, and of its files what was read of them. What an earlier look
    /// took in and nobody committed is read again: by the rules there are now.
    fn reset(index: &mut Index, head: &git2::Commit<'_>) -> Result<(), git2::Error> {
        let tree = head.tree()?;
        if index.is_empty() || index.has_conflicts() {
            return index.read_tree(&tree);
        }
        let files = index_entry::files_of(&tree)?;
        let known: Vec<IndexEntry> = index.iter().collect();
        for entry in &known {
            let path = path_of(&entry.path);
            if files.get_path(path, 0).is_none() && index.get_path(path, 0).is_some() {
                index.remove(path, 0)?;
            }
        }
        for entry in files.iter() {
            let mode = index_entry::known_mode(entry.mode);
            let known = index.get_path(path_of(&entry.path), 0);
            if known.is_none_or(|known| (known.id, known.mode) != (entry.id, mode)) {
                index.add(&index_entry::unseen(entry.path, entry.id, mode))?;
            }
        }
        Ok(())
    }

    /// The files with rules about others that count, ignored ones too, from the top down.
    pub(super) fn rule_files(&self, head: &git2::Commit<'_>) -> Result<Vec<PathBuf>, GitError> {
        let mut index = self.repository.index().map_err(library())?;
        Self::reset(&mut index, head).map_err(library())?;
        let tracked: Vec<IndexEntry> = index.iter().collect();
        let found = self.walk(&index, &tracked)?.rule_files;
        Ok(found.iter().map(|path| path_of(path).to_owned()).collect())
    }

    fn walk(&self, index: &Index, tracked: &[IndexEntry]) -> Result<Found, GitError> {
        let written = index.path().and_then(|path| fs::metadata(path).ok());
        let walk = Walk {
            repository: &self.repository,
            top: &self.top,
            reading: self.reading,
            index,
            written: written.as_ref(),
            cone: Cone::of(&self.parts.sparse),
            // Ours, and nothing that the agent does to it makes it a part of the work.
            hidden: (!ports_file::is_tracked(index)).then_some(ports_file::NAME),
        };
        let outside = Outside::read(self.repository.path(), self.excludes.as_deref())?;
        walk.run(tracked, Rules::new(outside, self.reading.work()))
    }

    /// Takes in what has changed.
    fn add(&self, index: &mut Index, found: &mut Found) -> Result<(), GitError> {
        let intake = Intake {
            repository: &self.repository,
            top: &self.top,
            reading: self.reading,
            lfs: self.parts.lfs,
        };
        for file in std::mem::take(&mut found.changed) {
            let known = index.get_path(path_of(&file.path), 0);
            let before = known.as_ref().map(|known| known.id);
            let (id, about) = match intake.take(&file, before)? {
                Taken::Stored(id, about) => (id, about),
                Taken::Refused(id, about, refusal) => {
                    found.refused.get_or_insert(refusal);
                    (id, about)
                }
                Taken::Unreadable => {
                    found.left_out.add(&file.path, Reason::Unreadable);
                    continue;
                }
                Taken::Gone if index.get_path(path_of(&file.path), 0).is_some() => {
                    index.remove(path_of(&file.path), 0).map_err(library())?;
                    continue;
                }
                Taken::Gone => continue,
            };
            match index.add(&index_entry::of(file.path.clone(), id, &about)) {
                Ok(()) => {}
                // To leave it out would lose it: the next try may find room.
                Err(error) if library_is_full(&error) => return Err(library()(error)),
                Err(error) => {
                    tracing::debug!(path = %path_of(&file.path).display(), %error, "refused name");
                    found.left_out.add(&file.path, Reason::Name);
                }
            }
        }
        // Rules that were given up while files were taken said nothing of them.
        if let Some(exhausted) = self.reading.exhausted() {
            found.refused.get_or_insert(exhausted);
        }
        found.left_out.sort();
        Ok(())
    }
}

/// Has the next staging read the files again whose contents stand in the index although Git LFS keeps them: a
/// bundle brought them along.
pub(super) fn forget_contents(repository: &Repository) -> Result<(), GitError> {
    let forget = || {
        let mut index = repository.index()?;
        let entries: Vec<IndexEntry> = index.iter().collect();
        for entry in entries.iter().filter(|entry| matches!(entry.mode, PLAIN | EXECUTABLE)) {
            if lfs::is_kept(repository, path_of(&entry.path))
                && lfs::pointer_at(repository, entry.id).is_none()
            {
                index.add(&index_entry::unseen(entry.path.clone(), entry.id, entry.mode))?;
            }
        }
        index.write()
    };
    forget().map_err(GitError::library("read the files of Git LFS anew"))
}

fn path_of(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

fn library() -> impl FnOnce(git2::Error) -> GitError {
    GitError::library("stage the files of the agent")
}
