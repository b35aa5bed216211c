//! The folder that holds everything of a demo or a trial, and goes away with it.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use nix::unistd::geteuid;
use uuid::Uuid;

/// Made by us, or given by a person and then left alone.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    /// A fresh one that others cannot read, for what `purpose` says.
    pub fn temporary(purpose: &str, keep: bool) -> anyhow::Result<Self> {
        let mut name = Uuid::new_v4().simple().to_string();
        name.truncate(12);
        let path = std::env::temp_dir().join(format!("archon-awo-{purpose}-{name}"));
        // Root's Postgres and agents run as another user, who must be able to pass through to its own folder.
        let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
        // Not recursive: fails if somebody else has made it.
        fs::DirBuilder::new()
            .mode(mode)
            .create(&path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        let mut folder = Self { path, keep };
        // Orders name the folder in a URL, which must hold no link.
        folder.path = folder.path.canonicalize()?;
        Ok(folder)
    }

    /// One that stays.
    pub fn given(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot use the folder {}", path.display());
        fs::DirBuilder::new().recursive(true).mode(0o711).create(path).with_context(cannot)?;
        Ok(Self { path: path.canonicalize().with_context(cannot)?, keep: true })
    }

    /// Whether it stays.
    pub fn is_kept(&self) -> bool {
        self.keep
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder inside, which only this user can read.
    pub fn make(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // A process that was just killed may still write for a moment.
        for _ in 0..50 {
            match fs::remove_dir_all(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                _ => return,
            }
        }
        tracing::warn!(folder = %self.path.display(), "cannot remove a temporary folder");
    }
}
