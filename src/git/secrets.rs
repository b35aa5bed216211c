//! Keeps credentials of this installation out of commits: what is pushed cannot be taken back.

use std::fs;

use git2::{Commit, Delta, Diff, DiffDelta, Index, Oid, Repository};

use super::{
    GitError,
    index_entry::{files_of, unseen},
    lfs_content::Pointer,
};
use crate::domain::Redactor;

/// Files above this many bytes are not searched; forges take no file of this size outside LFS.
const LIMIT: usize = 128 << 20;

/// Refuses a tree whose files, compared with those of `parent`, newly hold a known secret, in their
/// content, as the target of a link or in their name.
pub(super) fn refuse_secrets(
    redactor: &Redactor,
    repository: &Repository,
    parent: &Commit<'_>,
    tree: Oid,
) -> Result<(), GitError> {
    let find = || {
        let (old, new) = (parent.tree()?, repository.find_tree(tree)?);
        let diff = repository.diff_tree_to_tree(Some(&old), Some(&new), None)?;
        Ok(first_with_secret(redactor, repository, &diff))
    };
    match find().map_err(GitError::library("search the files of the agent for secrets"))? {
        Some(path) => Err(GitError::Secret { path }),
        None => Ok(()),
    }
}

/// The tree with secrets cut out of the files that newly hold one, compared with those of `parent`: files that
/// are saved outlive the secrets in them.
pub(super) fn cut_secrets(
    redactor: &Redactor,
    repository: &Repository,
    parent: &Commit<'_>,
    tree: Oid,
) -> Result<Oid, git2::Error> {
    let (old, new) = (parent.tree()?, repository.find_tree(tree)?);
    let diff = repository.diff_tree_to_tree(Some(&old), Some(&new), None)?;
    let mut cut: Option<Index> = None;
    for delta in diff.deltas() {
        let file = delta.new_file();
        let Some(path) = file.path().filter(|_| is_new_secret(redactor, repository, &delta)) else {
            continue;
        };
        let files = match &mut cut {
            Some(files) => files,
            None => cut.insert(files_of(&new)?),
        };
        let Some(known) = files.get_path(path, 0) else { continue };
        let blob = repository.find_blob(file.id())?;
        let mut stream = redactor.stream();
        let mut clean = stream.push(blob.content());
        clean.extend(stream.finish());
        let id = repository.blob(&clean)?;
        files.add(&unseen(known.path, id, known.mode))?;
    }
    cut.map_or(Ok(tree), |mut files| files.write_tree_to(repository))
}

/// The first file that holds a secret which it did not hold before; its name without secrets.
fn first_with_secret(
    redactor: &Redactor,
    repository: &Repository,
    diff: &Diff<'_>,
) -> Option<String> {
    let written = diff.deltas().filter(|delta| delta.status() != Delta::Deleted);
    for delta in written {
        let path = delta.new_file().path_bytes().unwrap_or_default();
        if is_new_secret(redactor, repository, &delta) || redactor.finds_secret(path) {
            return Some(redactor.text(&String::from_utf8_lossy(path)));
        }
    }
    None
}

/// Whether a file holds a secret that it did not hold before.
fn is_new_secret(redactor: &Redactor, repository: &Repository, delta: &DiffDelta<'_>) -> bool {
    let holds = |id: Oid| {
        let Ok(objects) = repository.odb() else { return false };
        let small = !id.is_zero() && objects.read_header(id).is_ok_and(|(size, _)| size <= LIMIT);
        // A submodule names a commit that is not here.
        small
            && objects.read(id).is_ok_and(|object| {
                redactor.finds_secret(object.data())
                    || content_holds(redactor, repository, object.data())
            })
    };
    holds(delta.new_file().id()) && !holds(delta.old_file().id())
}

/// Whether the content of Git LFS that a pointer stands for holds a secret; what the remote has already is
/// not here.
fn content_holds(redactor: &Redactor, repository: &Repository, pointer: &[u8]) -> bool {
    let content = Pointer::parse(pointer)
        .filter(|pointer| pointer.size <= LIMIT as u64)
        .and_then(|pointer| pointer.stored(repository.path()));
    content.is_some_and(|file| fs::read(file).is_ok_and(|bytes| redactor.finds_secret(&bytes)))
}
