//! `.ports.env`: tells what runs in a checkout which ports are its own, and is never committed.
//!
//! A repository that tracks a file (or a folder) of this name keeps it: then only the environment
//! tells the ports.

use std::{fs::File, io::Write, path::Path};

use nix::{
    fcntl::{OFlag, openat, renameat},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, unlinkat},
};

use super::{GitError, Sandbox, blocking};
use crate::disk::Beneath;

/// The file, at the top of the checkout.
pub(super) const NAME: &str = ".ports.env";
/// Where it is written before it gets its name; beside the checkout, so that it is never in a commit.
const STAGED: &str = ".ports.env.staged";

impl Sandbox {
    /// Puts `text` into `.ports.env`; answers whether it did, which it does not where the repository
    /// tracks that name. Links that the agent may have put in the way are not followed.
    pub async fn write_ports_file(&self, text: String) -> Result<bool, GitError> {
        let sandbox = self.clone();
        blocking(move || {
            let repository = git2::Repository::open_bare(&sandbox.trusted)
                .map_err(GitError::library("open the trusted repository"))?;
            let index = repository.index().map_err(GitError::library("read the index"))?;
            if is_tracked(&index) {
                return Ok(false);
            }
            let file = sandbox.checkout.join(NAME);
            sandbox.replace_ports_file(&text).map_err(GitError::file("write", &file))?;
            Ok(true)
        })
        .await
    }

    fn replace_ports_file(&self, text: &str) -> std::io::Result<()> {
        let root = Beneath::open(&self.root)?;
        let checkout =
            root.folder(self.checkout.strip_prefix(&self.root).unwrap_or(&self.checkout))?;
        // Left by an attempt that was killed.
        let _ = unlinkat(&root, STAGED, UnlinkatFlags::NoRemoveDir);
        let new = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let file = openat(&root, STAGED, new | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o644))?;
        let placed = File::from(file)
            .write_all(text.as_bytes())
            .and_then(|()| Ok(renameat(&root, STAGED, &checkout, NAME)?));
        if placed.is_err() {
            let _ = unlinkat(&root, STAGED, UnlinkatFlags::NoRemoveDir);
        }
        placed
    }
}

/// Whether the repository has something of its own under the name.
pub(super) fn is_tracked(index: &git2::Index) -> bool {
    index.get_path(Path::new(NAME), 0).is_some() || index.find_prefix(format!("{NAME}/")).is_ok()
}
