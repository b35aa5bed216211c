//! Finds the worktrees that an agent made of its checkout: what it left there is in no commit of its order.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::{Path, PathBuf},
};

use rustix::fs::{self, Dir, Mode, OFlags};

use super::{GitError, Sandbox, blocking};

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Most worktrees that are looked at.
const MOST: usize = 100;
/// Bytes that are read of a file that names one.
const LONGEST: u64 = 4096;

impl Sandbox {
    /// Their folders as the checkout's `.git` names them, those inside of the checkout relative to it. What is
    /// not readable is not there.
    pub async fn other_worktrees(&self) -> Result<Vec<PathBuf>, GitError> {
        let checkout = self.checkout.clone();
        blocking(move || Ok(find(&checkout).unwrap_or_default())).await
    }
}

/// The agent can write all of this: everything is opened below a descriptor, and no link is followed.
fn find(checkout: &Path) -> io::Result<Vec<PathBuf>> {
    let mut at = fs::openat(fs::CWD, checkout, FOLDER, Mode::empty())?;
    for name in [".git", "worktrees"] {
        at = fs::openat(&at, name, FOLDER, Mode::empty())?;
    }
    let mut found = Vec::new();
    for entry in Dir::read_from(&at)?.flatten() {
        let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
        if name == "." || name == ".." || found.len() >= MOST {
            continue;
        }
        let path = folder_of(&at, &name).unwrap_or_else(|_| name.clone().into());
        found.push(path.strip_prefix(checkout).map(Path::to_owned).unwrap_or(path));
    }
    found.sort();
    Ok(found)
}

/// The folder of a worktree: the one that holds the `.git` which its file names.
fn folder_of(at: &OwnedFd, name: &OsStr) -> io::Result<PathBuf> {
    let folder = fs::openat(at, name, FOLDER, Mode::empty())?;
    let file =
        File::from(fs::openat(&folder, "gitdir", OFlags::RDONLY.union(FILE), Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut content = Vec::new();
    file.take(LONGEST).read_to_end(&mut content)?;
    let link = PathBuf::from(OsString::from_vec(content.trim_ascii_end().to_vec()));
    link.parent().map(Path::to_owned).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::PathBuf};

    use super::find;

    #[test]
    fn the_folders_of_other_worktrees_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let checkout = folder.path().join("checkout");
        let entry = |name: &str| checkout.join(".git/worktrees").join(name);
        let inside = checkout.join(".claude/worktrees/side");
        for (name, at) in [("side", inside), ("away", "/elsewhere/away".into())] {
            fs::create_dir_all(entry(name)).unwrap();
            fs::write(entry(name).join("gitdir"), format!("{}/.git\n", at.display())).unwrap();
        }
        fs::create_dir(entry("odd")).unwrap();
        symlink("/etc", entry("link")).unwrap();
        let expected = [".claude/worktrees/side", "/elsewhere/away", "link", "odd"];
        let mut expected = expected.map(PathBuf::from);
        expected.sort();
        assert_eq!(find(&checkout).unwrap(), expected);
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("elsewhere/worktrees/side")).unwrap();
        fs::create_dir(at("checkout")).unwrap();
        assert!(find(&at("checkout")).is_err());
        symlink(at("elsewhere"), at("checkout/.git")).unwrap();
        assert!(find(&at("checkout")).is_err());
    }
}
