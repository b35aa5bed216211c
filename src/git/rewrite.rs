//! Makes the files of a checkout those of another tree: only what differs is written, and no link is followed.

use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use git2::{Index, Oid, Repository};

use super::{
    GitError, Sandbox, blocking,
    follow::remove_if_there,
    index_entry::{SUBMODULE, files_of, known_mode, unseen},
    lock::FileLock,
    placing::Place,
    removal::delete,
    sparse::Cone,
    tree_size::weigh_tree,
};

/// The index by which files are made.
const INDEX: &str = "following.index";
/// Where files are made before they take their place.
const STAGING: &str = ".following";

/// One file that is to change.
pub(super) struct Change {
    pub(super) path: PathBuf,
    /// Its object and mode; nothing when it goes.
    pub(super) new: Option<(Oid, u32)>,
    /// Whether there was none before.
    pub(super) is_added: bool,
}

/// What becomes of a folder that stands where a file belongs, and still holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InTheWay {
    /// It is an error.
    Kept,
    /// It goes, with what is in it.
    Removed,
}

impl Sandbox {
    /// Changes the files of the checkout, which are those of the tree `before`, to those of `after`; fine to
    /// repeat. No agent may be at work.
    pub(super) async fn rewrite_files(
        &self,
        (before, after): (Oid, Oid),
        in_the_way: InTheWay,
        lock: &FileLock,
    ) -> Result<(), GitError> {
        let staging = self.root.join(STAGING);
        let (sandbox, folder) = (self.clone(), staging.clone());
        let wanted = blocking(move || {
            delete(&folder)?;
            fs::create_dir(&folder).map_err(GitError::file("make the folder", &folder))?;
            remove_if_there(&sandbox.trusted.join(INDEX))?;
            let repository = sandbox.open_trusted()?;
            let wanted = sandbox.wanted(&repository, before, after);
            let wanted = wanted.map_err(GitError::library("choose the files to write"))?;
            let name = format!("the files of {}", sandbox.branch);
            let weight = weigh_tree(&repository, wanted, &name)?;
            sandbox.git.require_room(&name, weight.bytes)?;
            Ok((wanted, weight))
        });
        let (wanted, weight) = wanted.await?;
        // git itself turns contents into files, by the attributes that stand among them.
        let written = self
            .git
            .invoke("read-tree")
            .args(["--reset", "-u", &wanted.to_string()])
            .within(&self.trusted)
            .over(&staging)
            .by_index(&self.trusted.join(INDEX))
            .holding(lock)
            .ending_with_us()
            .check();
        self.git.within_quota(&staging, weight, written).await?;
        let sandbox = self.clone();
        blocking(move || {
            sandbox.place(&staging, (before, after), in_the_way)?;
            remove_if_there(&sandbox.trusted.join(INDEX))?;
            delete(&staging)
        })
        .await
    }

    /// Writes one file, or removes it. No agent may be at work.
    pub(super) fn set_file(&self, path: &Path, content: Option<&[u8]>) -> Result<(), GitError> {
        let checkout = &self.checkout;
        let place = Place::within(self.files()?);
        let to = checkout.join(path);
        let Some(content) = content else {
            return place.remove(path).map_err(GitError::file("remove", &to));
        };
        let staged = self.root.join(STAGING);
        delete(&staged)?;
        let write = || {
            fs::write(&staged, content)?;
            place.clear(path)?;
            place.put(&staged, path)
        };
        write().map_err(GitError::file("write", &to))
    }

    /// A tree of the files that are to be written, with all rules about how.
    fn wanted(&self, repository: &Repository, before: Oid, after: Oid) -> Result<Oid, git2::Error> {
        let cone = Cone::of(&self.parts.sparse);
        let mut all = Index::new()?;
        all.read_tree(&repository.find_tree(after)?)?;
        let mut chosen = Index::new()?;
        for entry in all.iter() {
            if entry.path.split(|byte| *byte == b'/').next_back() == Some(b".gitattributes") {
                chosen.add(&entry)?;
            }
        }
        for change in changes(repository, before, after)? {
            let path = change.path.as_os_str().as_bytes().to_vec();
            if let Some((id, mode)) = change.new.filter(|(_, mode)| *mode != SUBMODULE)
                && cone.holds(&path)
            {
                chosen.add(&unseen(path, id, mode))?;
            }
        }
        chosen.write_tree_to(repository)
    }

    /// Gives the files their places, and has the trusted repository know them.
    fn place(
        &self,
        staging: &Path,
        (before, after): (Oid, Oid),
        in_the_way: InTheWay,
    ) -> Result<(), GitError> {
        let library = || GitError::library("change the files of the checkout");
        let repository = self.open_trusted()?;
        let _ = fs::remove_file(repository.path().join("index.lock"));
        let mut index = repository.index().map_err(library())?;
        let cone = Cone::of(&self.parts.sparse);
        let checkout = &self.checkout;
        let place = Place::within(self.files()?);
        let changes = changes(&repository, before, after).map_err(library())?;
        // What goes makes room first.
        for change in changes.iter().filter(|change| change.new.is_none()) {
            let path = &change.path;
            place.remove(path).map_err(GitError::file("remove", &checkout.join(path)))?;
            index.remove_path(path).map_err(library())?;
        }
        for Change { path, new, .. } in &changes {
            let Some((id, mode)) = *new else { continue };
            let bytes = path.as_os_str().as_bytes().to_vec();
            let from = staging.join(path);
            if mode != SUBMODULE && cone.holds(&bytes) {
                let to = checkout.join(path);
                if in_the_way == InTheWay::Removed {
                    place.clear(path).map_err(GitError::file("make room for", &to))?;
                }
                place.put(&from, path).map_err(GitError::file("write", &to))?;
            }
            index.add(&unseen(bytes, id, mode)).map_err(library())?;
        }
        index.write().map_err(library())
    }
}

/// The files that differ between two trees.
pub(super) fn changes(
    repository: &Repository,
    before: Oid,
    after: Oid,
) -> Result<Vec<Change>, git2::Error> {
    let (old, new) = (repository.find_tree(before)?, repository.find_tree(after)?);
    let diff = repository.diff_tree_to_tree(Some(&old), Some(&new), None)?;
    let files = files_of(&new)?;
    let mut changes = Vec::new();
    for delta in diff.deltas() {
        let file = delta.new_file();
        let Some(path) = file.path().or_else(|| delta.old_file().path()) else { continue };
        let there = files.get_path(path, 0).filter(|_| !file.id().is_zero());
        let new = there.map(|there| (file.id(), known_mode(there.mode)));
        let is_added = delta.old_file().id().is_zero();
        changes.push(Change { path: path.to_owned(), new, is_added });
    }
    Ok(changes)
}
