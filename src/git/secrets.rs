//! Keeps credentials of this installation out of commits: what is pushed cannot be taken back.

use std::{
    fs::File,
    io::{self, Read},
};

use git2::{Commit, Delta, Diff, DiffDelta, FileMode, Index, Oid, Repository};

use super::{
    GitError,
    index_entry::{files_of, unseen},
    lfs_content::{LONGEST, Pointer},
};
use crate::{
    disk::{Redacted, holds_secret},
    domain::Redactor,
};

/// Objects of this size are files of their own, read piece by piece; smaller ones may be in packs, in bytes.
const WHOLE: usize = 1 << 20;

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
        let Some(path) = file.path() else { continue };
        if !is_new_secret(redactor, repository, &delta)? {
            continue;
        }
        let files = match &mut cut {
            Some(files) => files,
            None => cut.insert(files_of(&new)?),
        };
        let Some(known) = files.get_path(path, 0) else { continue };
        let objects = repository.odb()?;
        let mut writer = repository.blob_writer(None)?;
        let mut clean = Redacted::new(content(&objects, file.id())?, redactor);
        io::copy(&mut clean, &mut writer).map_err(unreadable)?;
        let id = writer.commit()?;
        files.add(&unseen(known.path, id, known.mode))?;
    }
    cut.map_or(Ok(tree), |mut files| files.write_tree_to(repository))
}

/// The first file that holds a secret which it did not hold before; its name without secrets.
fn first_with_secret(
    redactor: &Redactor,
    repository: &Repository,
    diff: &Diff<'_>,
) -> Result<Option<String>, git2::Error> {
    let written = diff.deltas().filter(|delta| delta.status() != Delta::Deleted);
    for delta in written {
        let path = delta.new_file().path_bytes().unwrap_or_default();
        if redactor.finds_secret(path) || is_new_secret(redactor, repository, &delta)? {
            return Ok(Some(redactor.text(&String::from_utf8_lossy(path))));
        }
    }
    Ok(None)
}

/// Whether a file holds a secret that it did not hold before.
fn is_new_secret(
    redactor: &Redactor,
    repository: &Repository,
    delta: &DiffDelta<'_>,
) -> Result<bool, git2::Error> {
    let holds = |file: git2::DiffFile<'_>| -> Result<bool, git2::Error> {
        // A submodule names a commit that is not here.
        if file.id().is_zero() || file.mode() == FileMode::Commit {
            return Ok(false);
        }
        let objects = repository.odb()?;
        let found = holds_secret(content(&objects, file.id())?, redactor).map_err(unreadable)?;
        Ok(found || stored_content_holds(redactor, repository, file.id())?)
    };
    // Most files hold none, and those of the past need no look then.
    Ok(holds(delta.new_file())? && !holds(delta.old_file())?)
}

/// The content of an object, however long it is.
fn content<'a>(objects: &'a git2::Odb<'_>, id: Oid) -> Result<Box<dyn Read + 'a>, git2::Error> {
    if objects.read_header(id)?.0 > WHOLE
        && let Ok((reader, ..)) = objects.reader(id)
    {
        return Ok(Box::new(reader));
    }
    // One in a pack can only be read as a whole.
    Ok(Box::new(io::Cursor::new(objects.read(id)?.data().to_vec())))
}

/// Whether the content of Git LFS that a pointer stands for holds a secret; what the remote has already is
/// not here.
fn stored_content_holds(
    redactor: &Redactor,
    repository: &Repository,
    id: Oid,
) -> Result<bool, git2::Error> {
    let objects = repository.odb()?;
    if objects.read_header(id)?.0 as u64 > LONGEST {
        return Ok(false);
    }
    let stored = Pointer::parse(objects.read(id)?.data())
        .and_then(|pointer| pointer.stored(repository.path()));
    match stored {
        Some(file) => {
            File::open(file).and_then(|file| holds_secret(file, redactor)).map_err(unreadable)
        }
        None => Ok(false),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
fn unreadable(error: io::Error) -> git2::Error {
    git2::Error::from_str(&error.to_string())
}
