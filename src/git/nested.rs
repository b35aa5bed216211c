//! Looks at a `.git` that an agent left somewhere in its checkout, without opening it as a repository.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use crate::disk::{Beneath, Kind};

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

/// Looks for a repository in a folder below another.
pub(super) fn look(above: &Beneath, folder: &Path) -> Nested {
    let git = folder.join(".git");
    let Ok(about) = above.about(&git) else { return Nested::No };
    match about.kind {
        Kind::Link | Kind::Mount => return Nested::Committed,
        Kind::File => {
            let is_pointer = beginning(above, &git).is_none_or(|text| text.starts_with(b"gitdir:"));
            return if is_pointer { Nested::Committed } else { Nested::No };
        }
        Kind::Folder => {}
        Kind::Socket | Kind::Pipe | Kind::Device => return Nested::No,
    }
    let Ok(git) = above.folder(&git) else { return Nested::Committed };
    let has = |name: &str| git.about(Path::new(name)).is_ok();
    if has("commondir") || has("reftable") {
        return Nested::Committed;
    }
    if !has("HEAD") || !has("objects") || !has("refs") {
        return Nested::No;
    }
    let head = beginning(&git, Path::new("HEAD"));
    let on_branch = head.is_some_and(|text| text.starts_with(b"ref:"));
    let packed = git.about(Path::new("packed-refs")).is_ok_and(|file| file.size > 0);
    if on_branch && !packed && !has_file(&git) { Nested::Empty } else { Nested::Committed }
}

/// The commit that a repository is at when it is on no branch.
pub(super) fn detached_head(folder: &Beneath) -> Option<String> {
    let text = String::from_utf8(beginning(folder, Path::new(".git/HEAD"))?).ok()?;
    Some(text.trim_end().to_owned())
}

/// The first bytes of a plain file.
fn beginning(folder: &Beneath, file: &Path) -> Option<Vec<u8>> {
    let (file, _) = folder.file(file).ok()?;
    let mut content = Vec::new();
    file.take(LONGEST).read_to_end(&mut content).ok()?;
    Some(content)
}

/// Whether anything but folders lies below `refs`; more of them than a look is worth count as yes.
fn has_file(git: &Beneath) -> bool {
    let (mut pending, mut seen) = (vec![PathBuf::from("refs")], 0);
    while let Some(path) = pending.pop() {
        seen += 1;
        let Ok(folder) = git.folder(&path) else { return true };
        let is_folder = |name: &Path| folder.about(name).is_ok_and(|it| it.kind == Kind::Folder);
        let mut folders_only = true;
        let listed = folder.names(|name| {
            folders_only = is_folder(Path::new(name)) && pending.len() < MOST_FOLDERS;
            pending.push(path.join(name));
            folders_only
        });
        if listed.is_err() || !folders_only || seen > MOST_FOLDERS {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{Nested, look};
    use crate::disk::Beneath;

    #[test]
    fn only_a_repository_with_commits_is_more_than_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let above = Beneath::open(folder.path().parent().unwrap()).unwrap();
        let look = |folder: &Path| look(&above, Path::new(folder.file_name().unwrap()));
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
