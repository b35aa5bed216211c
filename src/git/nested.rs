//! Looks at a `.git` that an agent left somewhere in its checkout, without opening it as a repository.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;

/// Folders below `refs` that are looked at; a repository without commits has three.
const MOST_FOLDERS: usize = 1000;
/// Bytes that are read of a small file.
const LONGEST: u64 = 4096;

/// What a folder is besides a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nested {
    /// Nothing: files.
    No,
    /// A repository in which nothing was committed: nothing but files.
    Empty,
    /// A repository with commits of its own, or the worktree of one.
    Committed,
}

/// Looks for a repository in a folder.
pub(super) fn look(folder: &Path) -> Nested {
    let git = folder.join(".git");
    let Ok(about) = fs::symlink_metadata(&git) else { return Nested::No };
    let has = |name: &str| fs::symlink_metadata(git.join(name)).is_ok();
    if about.is_symlink() {
        return Nested::Committed;
    }
    if about.is_file() {
        let is_pointer = beginning(&git).is_none_or(|text| text.starts_with(b"gitdir:"));
        return if is_pointer { Nested::Committed } else { Nested::No };
    }
    if !about.is_dir() {
        return Nested::No;
    }
    if fs::read_dir(&git).is_err() {
        return Nested::Committed;
    }
    if has("commondir") || has("reftable") {
        return Nested::Committed;
    }
    if !has("HEAD") || !has("objects") || !has("refs") {
        return Nested::No;
    }
    let on_branch = beginning(&git.join("HEAD")).is_some_and(|text| text.starts_with(b"ref:"));
    let packed = fs::symlink_metadata(git.join("packed-refs")).is_ok_and(|file| file.len() > 0);
    if on_branch && !packed && !has_file(git.join("refs")) {
        Nested::Empty
    } else {
        Nested::Committed
    }
}

/// The commit that a repository is at when it is on no branch.
pub(super) fn detached_head(folder: &Path) -> Option<String> {
    let text = String::from_utf8(beginning(&folder.join(".git/HEAD"))?).ok()?;
    Some(text.trim_end().to_owned())
}

/// The first bytes of a plain file.
fn beginning(file: &Path) -> Option<Vec<u8>> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = File::options().read(true).custom_flags(flags).open(file).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut content = Vec::new();
    file.take(LONGEST).read_to_end(&mut content).ok()?;
    Some(content)
}

/// Whether anything but folders lies below; more of them than a look is worth count as yes.
fn has_file(folder: PathBuf) -> bool {
    let (mut pending, mut seen) = (vec![folder], 0);
    while let Some(folder) = pending.pop() {
        seen += 1;
        let Ok(entries) = fs::read_dir(&folder) else { return true };
        for entry in entries {
            match entry.and_then(|entry| Ok((entry.file_type()?, entry.path()))) {
                Ok((kind, path)) if kind.is_dir() => pending.push(path),
                _ => return true,
            }
        }
        if seen > MOST_FOLDERS {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Nested, look};

    #[test]
    fn only_a_repository_with_commits_is_more_than_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert_eq!(look(folder.path()), Nested::No);
        fs::create_dir(path(".git")).unwrap();
        assert_eq!(look(folder.path()), Nested::No, "a folder of that name");
        git2::Repository::init(folder.path()).unwrap();
        assert_eq!(look(folder.path()), Nested::Empty);
        fs::create_dir_all(path(".git/refs/heads/feat")).unwrap();
        assert_eq!(look(folder.path()), Nested::Empty);
        fs::write(path(".git/refs/heads/feat/x"), "0").unwrap();
        assert_eq!(look(folder.path()), Nested::Committed);
        fs::remove_dir_all(path(".git")).unwrap();
        fs::write(path(".git"), "gitdir: elsewhere\n").unwrap();
        assert_eq!(look(folder.path()), Nested::Committed);
        fs::write(path(".git"), "words\n").unwrap();
        assert_eq!(look(folder.path()), Nested::No);
    }
}
