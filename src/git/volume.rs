//! The folders of `AWO_REPOSITORY_DIR`: one per order, the caches, the trash.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{GitError, History, blocking};
use crate::{
    disk::look_at_volume,
    domain::{RepositoryUrl, WorkOrderId},
    process,
};

/// Marks a folder as made by archon-awo; only such a folder is ever removed.
pub(super) const MARKER: &str = ".archon-sandbox";

/// The volume with the sandboxes. Names that start with a dot can be neither orders nor
/// repositories, so they are free for our own use.
#[derive(Debug, Clone)]
pub struct Volume {
    root: PathBuf,
}

/// What preparing the volume found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeReport {
    /// Whether the file system spreads sandboxes over the disk (ext4's `T` attribute). Without it
    /// ext4 needs seconds instead of milliseconds to make files where many were just deleted.
    pub spread_sandboxes: bool,
}

impl Volume {
    /// The volume at `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Everything of one order: its checkout, `.home`, `.tmp` and the marker.
    pub fn sandbox(&self, order: &WorkOrderId) -> PathBuf {
        self.root.join(order.as_str())
    }

    /// The folder of one repository's cache with so much of its history: the mirror and its lock.
    pub fn mirror_folder(&self, url: &RepositoryUrl, history: History) -> PathBuf {
        let identity = match url.local_path() {
            Some(path) => path.display().to_string(),
            None => format!("{}/{}/{}", url.host(), url.owner(), url.name()),
        };
        // Case is kept: two caches of one repository cost space, one cache of two is a mix-up.
        let digest = Sha256::digest(identity);
        let key = digest.iter().take(8).fold(0u64, |key, byte| key << 8 | u64::from(*byte));
        self.mirrors().join(match history {
            History::Full => format!("{key:016x}"),
            History::Shallow => format!("{key:016x}-shallow"),
        })
    }

    /// The repository of one order that the agent cannot write.
    pub fn trusted(&self, order: &WorkOrderId) -> PathBuf {
        self.trusted_folder().join(format!("{order}.git"))
    }

    /// Where removed folders wait to be deleted.
    pub fn trash(&self) -> PathBuf {
        self.root.join(".trash")
    }

    /// Where the caches of repositories are, one folder each.
    pub(super) fn mirrors(&self) -> PathBuf {
        self.cache().join("mirrors")
    }

    /// Touched whenever the volume is tidied; tells the time of its file system.
    pub(super) fn tidied(&self) -> PathBuf {
        self.cache().join("tidied")
    }

    pub(super) fn order_lock(&self, order: &WorkOrderId) -> PathBuf {
        self.cache().join("locks").join(order.as_str())
    }

    /// Held while the files of an order are uploaded.
    pub(super) fn upload_lock(&self, order: &WorkOrderId) -> PathBuf {
        self.cache().join("uploads").join(order.as_str())
    }

    /// There as long as the work of an order is being restored.
    pub(super) fn restoring(&self, order: &WorkOrderId) -> PathBuf {
        self.cache().join("restoring").join(order.as_str())
    }

    /// Held by the shim of an agent as long as a process of the agent lives.
    pub(super) fn agent_lock(&self, order: &WorkOrderId) -> PathBuf {
        self.sandbox(order).join(".lock")
    }

    fn cache(&self) -> PathBuf {
        self.root.join(".cache")
    }

    pub(super) fn trusted_folder(&self) -> PathBuf {
        self.cache().join("trusted")
    }

    pub(super) async fn prepare(&self, home: &Path) -> Result<VolumeReport, GitError> {
        let mut folders = vec![home.to_owned(), self.root.clone(), self.trash()];
        folders.extend([self.trusted_folder(), self.mirrors()]);
        let root = self.root.clone();
        blocking(move || {
            for folder in &folders {
                let made = std::fs::create_dir_all(folder).or_else(|error| {
                    // An agent that has our user may have closed one of those above it.
                    let opened = look_at_volume(&root).opened > 0;
                    if opened { std::fs::create_dir_all(folder) } else { Err(error) }
                });
                made.map_err(GitError::file("make the folder", folder))?;
            }
            Ok(())
        })
        .await?;
        let spread_sandboxes = spread(&[self.root.clone(), self.trusted_folder()]).await;
        Ok(VolumeReport { spread_sandboxes })
    }
}

/// Sets ext4's `T` attribute, which treats each subfolder as the top of its own hierarchy. Other
/// file systems do not have it and do not need it.
async fn spread(folders: &[PathBuf]) -> bool {
    let mut chattr = process::command("chattr");
    chattr.env("PATH", super::invocation::PATH).arg("+T").arg("--").args(folders);
    chattr.output().await.is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::Volume;
    use crate::{
        domain::{RemoteRules, RepositoryUrl},
        git::History,
    };

    #[test]
    fn one_repository_has_one_cache_however_it_is_spelled() {
        let rules = RemoteRules { allowed_hosts: vec!["github.com".to_owned()], allow_local: true };
        let volume = Volume::new("/v".into());
        let folder = |text: &str| {
            let url = RepositoryUrl::parse(text, &rules).expect("a valid address");
            volume.mirror_folder(&url, History::Full)
        };
        assert_eq!(folder("acme/app"), folder("https://GitHub.com:443/acme/app.git"));
        assert_ne!(folder("acme/app"), folder("acme/app2"));
        assert_ne!(folder("file:///a/app"), folder("file:///b/app"));
    }
}
