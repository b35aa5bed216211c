//! Finds the worktrees that an agent made of its checkout: what it left there is in no commit of its order.

use std::{
    ffi::OsString,
    io::{self, Read},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use super::{GitError, Sandbox, blocking};
use crate::disk::Beneath;

/// Most worktrees that are looked at.
const MOST: usize = 100;
/// Bytes that are read of a file that names one.
const LONGEST: u64 = 4096;

impl Sandbox {
    /// Their folders as the checkout's `.git` names them, those inside of the checkout relative to it. What is
    /// not readable is not there.
    pub async fn other_worktrees(&self) -> Result<Vec<PathBuf>, GitError> {
        let sandbox = self.clone();
        blocking(move || Ok(find(&sandbox.files()?, &sandbox.checkout).unwrap_or_default())).await
    }
}

/// The agent can write all of this.
fn find(top: &Beneath, checkout: &Path) -> io::Result<Vec<PathBuf>> {
    let at = top.folder(Path::new(".git/worktrees"))?;
    let mut found = Vec::new();
    at.names(|name| {
        let path = folder_of(&at, Path::new(name)).unwrap_or_else(|_| name.into());
        found.push(path.strip_prefix(checkout).map(Path::to_owned).unwrap_or(path));
        found.len() < MOST
    })?;
    found.sort();
    Ok(found)
}

/// The folder of a worktree: the one that holds the `.git` which its file names.
fn folder_of(at: &Beneath, name: &Path) -> io::Result<PathBuf> {
    let (file, _) = at.file(&name.join("gitdir"))?;
    let mut content = Vec::new();
    file.take(LONGEST).read_to_end(&mut content)?;
    let link = PathBuf::from(OsString::from_vec(content.trim_ascii_end().to_vec()));
    link.parent().map(Path::to_owned).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::symlink,
        path::{Path, PathBuf},
    };

    use crate::disk::Beneath;

    fn find(checkout: &Path) -> std::io::Result<Vec<PathBuf>> {
        super::find(&Beneath::open(checkout)?, checkout)
    }

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
