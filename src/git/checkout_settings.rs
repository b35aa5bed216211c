//! The settings of the checkout's own git, which an author can write: aliases, programs that show changes, attributes that
//! hide them. While somebody looks at the change they are those that the checkout was made with.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{self, AtFlags, Mode, OFlags};

use super::Sandbox;
use crate::disk::{Beneath, Kind};

/// The files: the folder below `.git`, the name there, and the name under which each is kept beside the trusted
/// repository's own files.
const FILES: [(Option<&str>, &str, &str); 2] =
    [(None, "config", "config"), (Some("info"), "attributes", "attributes")];
/// The most that is kept of what an author wrote, in bytes.
const LONGEST: u64 = 1 << 20;
const NEW: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Keeps how `git_dir`, which nobody has used, is set up.
pub(super) fn keep(git_dir: &Path, trusted: &Path) -> io::Result<()> {
    for (folder, name, kept) in FILES {
        let path =
            folder.map_or_else(|| git_dir.to_owned(), |folder| git_dir.join(folder)).join(name);
        let content = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        std::fs::write(made(trusted, kept), content)?;
    }
    Ok(())
}

impl Sandbox {
    /// Sets the author's settings aside. A checkout that is older than this rule keeps them.
    pub(super) fn lay_settings_aside(&self) -> io::Result<()> {
        for (folder, name, kept) in FILES {
            let made = match std::fs::read(made(&self.trusted, kept)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                read => read?,
            };
            let Some(git_dir) = self.open_git_dir(folder)? else { continue };
            let now = read_plain(&git_dir, name)?;
            std::fs::write(authors(&self.trusted, kept), &now)?;
            if now != made {
                place(&git_dir, name, &made)?;
            }
        }
        Ok(())
    }

    /// Gives the author its settings back.
    pub(super) fn put_settings_back(&self) -> io::Result<()> {
        for (folder, name, kept) in FILES {
            let aside = authors(&self.trusted, kept);
            let content = match std::fs::read(&aside) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                read => read?,
            };
            if let Some(git_dir) = self.open_git_dir(folder)?
                && read_plain(&git_dir, name)? != content
            {
                place(&git_dir, name, &content)?;
            }
            std::fs::remove_file(aside)?;
        }
        Ok(())
    }

    /// The agent can write all of this.
    fn open_git_dir(&self, folder: Option<&str>) -> io::Result<Option<Beneath>> {
        let git_dir = self.files().map_err(io::Error::other)?.folder(Path::new(".git"))?;
        let Some(folder) = folder else { return Ok(Some(git_dir)) };
        match git_dir.folder(Path::new(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => Ok(Some(opened?)),
        }
    }
}

/// How a checkout was made.
fn made(trusted: &Path, kept: &str) -> PathBuf {
    trusted.join(format!("checkout.{kept}"))
}

/// What the author made of it, while that is laid aside.
fn authors(trusted: &Path, kept: &str) -> PathBuf {
    trusted.join(format!("authors.{kept}"))
}

/// The content of a file; nothing where there is none, or something else.
fn read_plain(folder: &Beneath, name: &str) -> io::Result<Vec<u8>> {
    let name = Path::new(name);
    match folder.about(name).map(|about| about.kind) {
        Ok(Kind::File) => {}
        Ok(_) => return Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let mut content = Vec::new();
    folder.file(name)?.0.take(LONGEST).read_to_end(&mut content)?;
    Ok(content)
}

/// Puts a file in its place; an empty one is none.
fn place(folder: &Beneath, name: &str, content: &[u8]) -> io::Result<()> {
    let gone = |name: &str| match fs::unlinkat(folder, name, AtFlags::empty()) {
        Err(error) if error != rustix::io::Errno::NOENT => Err(io::Error::from(error)),
        _ => Ok(()),
    };
    if content.is_empty() {
        return gone(name);
    }
    let new = format!("{name}.awo");
    gone(&new)?;
    let mut file = File::from(fs::openat(folder, &new, NEW, Mode::from_raw_mode(0o644))?);
    file.write_all(content)?;
    Ok(fs::renameat(folder, &new, folder, name)?)
}
