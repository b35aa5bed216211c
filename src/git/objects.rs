//! Gives a new repository the objects of a cache: by reference, or as a copy of all of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use git2::{Repository, RepositoryInitOptions};

use super::GitError;
use crate::domain::SandboxType;

/// The list of the object folders that a repository borrows from.
pub(super) const BORROWED: &str = "objects/info/alternates";
/// The commits whose parents are not there.
const SHALLOW: &str = "shallow";

/// What a new repository is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Files beside a folder `.git`.
    Checkout,
    /// No files.
    Bare,
}

/// Makes a repository in `folder` with the objects of a cache. Plain writes are quicker than a clone, and
/// one form serves all plans.
pub(super) fn new_repository(
    folder: &Path,
    purpose: Purpose,
    mirror: &Path,
    form: SandboxType,
) -> Result<(), GitError> {
    let bare = purpose == Purpose::Bare;
    let mut options = RepositoryInitOptions::new();
    options.bare(bare).external_template(false).no_reinit(true).mkpath(true);
    Repository::init_opts(folder, &options).map_err(GitError::library("make a repository"))?;
    let git_dir = if bare { folder.to_owned() } else { folder.join(".git") };
    lend(mirror, &git_dir, form)
}

/// Gives the repository in `git_dir` the objects of a cache, and its limits.
fn lend(mirror: &Path, git_dir: &Path, form: SandboxType) -> Result<(), GitError> {
    let objects = mirror.join("objects");
    match form {
        SandboxType::GitWorktree => borrow(git_dir, &[objects])?,
        SandboxType::GitBranch => copy(&objects, &git_dir.join("objects"))?,
    }
    // Its own copy: that of the cache moves on with the branches.
    let limits = mirror.join(SHALLOW);
    match fs::read(&limits) {
        Ok(commits) => put(git_dir, SHALLOW, &commits),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(GitError::file("read", &limits)(error)),
    }
}

/// Has a repository borrow from these folders too.
pub(super) fn borrow(git_dir: &Path, folders: &[PathBuf]) -> Result<(), GitError> {
    if folders.is_empty() {
        return Ok(());
    }
    let known = fs::read_to_string(git_dir.join(BORROWED)).unwrap_or_default();
    let mut lines: Vec<String> = known.lines().map(str::to_owned).collect();
    for folder in folders {
        let line = folder.display().to_string();
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    put(git_dir, BORROWED, (lines.join("\n") + "\n").as_bytes())
}

/// Writes a file in a folder of ours.
pub(super) fn put(folder: &Path, name: &str, content: &[u8]) -> Result<(), GitError> {
    let file = folder.join(name);
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).map_err(GitError::file("make the folder", parent))?;
    }
    fs::write(&file, content).map_err(GitError::file("write", &file))
}

/// Copies the objects of a repository; where the file system can, they share their blocks.
fn copy(from: &Path, to: &Path) -> Result<(), GitError> {
    fs::create_dir_all(to).map_err(GitError::file("make the folder", to))?;
    for entry in fs::read_dir(from).map_err(GitError::file("list the folder", from))? {
        let entry = entry.map_err(GitError::file("list the folder", from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(GitError::file("look at", &path))?;
        if kind.is_dir() {
            copy(&path, &target)?;
        } else if kind.is_file() && !entry.file_name().to_string_lossy().starts_with("tmp_") {
            fs::copy(&path, &target).map_err(GitError::file("copy an object to", &target))?;
        }
    }
    Ok(())
}
