//! Whether an agent changed something inside of a submodule: a commit keeps submodules where they were.

use std::{
    ffi::OsStr,
    fs::{self, Metadata},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

use git2::{Index, IndexEntry, Oid, Repository};

use super::{
    GitError,
    index_entry::SUBMODULE,
    intake::{Intake, Taken},
    left_out::{LeftOut, Reason},
    nested,
    reading::Reading,
    rules::{Outside, Rules},
    sandbox::RECORD,
    sparse::Cone,
    walk::Walk,
};
use crate::disk::{About, Beneath};

/// The deepest that submodules lie in each other.
const DEEPEST: usize = 6;

/// The submodules of a checkout.
pub(super) struct Submodules<'a> {
    /// Borrows the objects of submodules where it borrows any.
    pub(super) repository: &'a Repository,
    pub(super) checkout: &'a Beneath,
    pub(super) reading: &'a Reading,
    /// Whether their files were fetched.
    pub(super) filled: bool,
}

impl Submodules<'_> {
    /// Notes those that changed.
    pub(super) fn look<'e>(
        &self,
        links: impl Iterator<Item = &'e IndexEntry>,
        left_out: &mut LeftOut,
    ) -> Result<(), GitError> {
        let record = self.repository.path().join(RECORD);
        let made = fs::metadata(&record).map_err(GitError::file("look at", &record))?;
        for link in links {
            self.reading.go_on()?;
            let folder = Path::new(OsStr::from_bytes(&link.path));
            if self.is_changed(self.checkout, folder, link.id, &made, 0) {
                left_out.add(&link.path, Reason::Submodule);
            }
        }
        Ok(())
    }

    /// What cannot be told counts as a change: it is only named and saved.
    fn is_changed(
        &self,
        above: &Beneath,
        folder: &Path,
        commit: Oid,
        made: &Metadata,
        depth: usize,
    ) -> bool {
        let Ok(folder) = above.folder(folder) else { return true };
        let Ok(about) = folder.itself() else { return true };
        let mut is_empty = true;
        let listed = folder.names(|_| {
            is_empty = false;
            false
        });
        if listed.is_err() {
            return true;
        }
        if is_empty {
            return self.filled && is_younger(&about, made);
        }
        let head = nested::detached_head(&folder);
        if depth > DEEPEST || head != Some(commit.to_string()) {
            return true;
        }
        self.has_changed_files(&folder, commit, made, depth).unwrap_or(true)
    }

    fn has_changed_files(
        &self,
        folder: &Beneath,
        commit: Oid,
        made: &Metadata,
        depth: usize,
    ) -> Result<bool, GitError> {
        let library = || GitError::library("look for changes of a submodule");
        let mut index = Index::new().map_err(library())?;
        // One that stands alone has its objects for itself, where we do not look.
        let tree = self.repository.find_commit(commit).and_then(|commit| commit.tree());
        let is_known = tree.is_ok();
        if let Ok(tree) = tree {
            index.read_tree(&tree).map_err(library())?;
        }
        let tracked: Vec<IndexEntry> = index.iter().collect();
        let walk = Walk {
            repository: self.repository,
            top: folder,
            reading: self.reading,
            index: &index,
            written: None,
            cone: Cone::of(&[]),
            hidden: None,
        };
        let found = walk.run(&tracked, Rules::new(Outside::default(), self.reading.work()))?;
        match found.left_out.repositories() {
            // Submodules, for all we know.
            Some(inner) if !is_known && depth <= DEEPEST => {
                for path in inner {
                    let Ok(inner) = folder.folder(&path) else { return Ok(true) };
                    if self.has_changed_files(&inner, Oid::ZERO_SHA1, made, depth + 1)? {
                        return Ok(true);
                    }
                }
            }
            Some(inner) if inner.is_empty() => {}
            _ => return Ok(true),
        }
        let (links, files): (Vec<_>, Vec<_>) =
            tracked.iter().partition(|entry| entry.mode == SUBMODULE);
        let lower = |link: &&IndexEntry| {
            let inner = Path::new(OsStr::from_bytes(&link.path));
            self.is_changed(folder, inner, link.id, made, depth + 1)
        };
        if files.iter().any(|entry| found.lacks(&entry.path)) || links.iter().any(lower) {
            return Ok(true);
        }
        let intake =
            Intake { repository: self.repository, top: folder, reading: self.reading, lfs: false };
        for file in &found.changed {
            let path = Path::new(OsStr::from_bytes(&file.path));
            let about = folder.about(path);
            let is_old = about.is_ok_and(|about| !is_younger(&about, made));
            let known = index.get_path(path, 0).map(|known| known.id);
            if is_old && (known.is_some() || !is_known) {
                continue;
            }
            match intake.take(file, known)? {
                Taken::Stored(id, _) if known == Some(id) => {}
                _ => return Ok(true),
            }
        }
        Ok(false)
    }
}

/// Whether something was touched after the sandbox was made. An owner cannot forge this time.
fn is_younger(file: &About, made: &Metadata) -> bool {
    (file.changed.0, i64::from(file.changed.1)) > (made.mtime(), made.mtime_nsec())
}
