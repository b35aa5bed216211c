//! Keeps credentials of this installation out of commits: what is pushed cannot be taken back.

use std::fs;

use git2::{Commit, Delta, Diff, Oid, Repository};

use super::{GitError, lfs_content::Pointer};
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
        first_with_secret(redactor, repository, &diff)
    };
    match find().map_err(GitError::library("search the files of the agent for secrets"))? {
        Some(path) => Err(GitError::Secret { path }),
        None => Ok(()),
    }
}

/// The first file that holds a secret which it did not hold before; its name without secrets.
fn first_with_secret(
    redactor: &Redactor,
    repository: &Repository,
    diff: &Diff<'_>,
) -> Result<Option<String>, git2::Error> {
    let objects = repository.odb()?;
    let holds = |id: Oid| {
        let small = !id.is_zero() && objects.read_header(id).is_ok_and(|(size, _)| size <= LIMIT);
        // A submodule names a commit that is not here.
        small
            && objects.read(id).is_ok_and(|object| {
                redactor.finds_secret(object.data())
                    || content_holds(redactor, repository, object.data())
            })
    };
    for delta in diff.deltas().filter(|delta| delta.status() != Delta::Deleted) {
        let path = delta.new_file().path_bytes().unwrap_or_default();
        let newly = holds(delta.new_file().id()) && !holds(delta.old_file().id());
        if newly || redactor.finds_secret(path) {
            return Ok(Some(redactor.text(&String::from_utf8_lossy(path))));
        }
    }
    Ok(None)
}

/// Whether the content of Git LFS that a pointer stands for holds a secret; what the remote has already is
/// not here.
fn content_holds(redactor: &Redactor, repository: &Repository, pointer: &[u8]) -> bool {
    let content = Pointer::parse(pointer)
        .filter(|pointer| pointer.size <= LIMIT as u64)
        .and_then(|pointer| pointer.stored(repository.path()));
    content.is_some_and(|file| fs::read(file).is_ok_and(|bytes| redactor.finds_secret(&bytes)))
}
