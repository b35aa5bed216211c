//! How much disk a checkout may take: reckoned before its files are written, and measured while they are.

use std::{path::Path, time::Duration};

use super::{Git, GitError, reading::reading, tree_size::Weight};
use crate::disk::{DiskSpace, SystemDisk, size_text, usage};

/// Shortest time between two looks at what is being written.
const PACE: Duration = Duration::from_secs(1);
/// A look may take one part in so many of the time.
const SHARE: u32 = 10;
/// What a content may become at most on its way into a file: four bytes for a letter, and two letters for the
/// end of a line.
const GROWTH: u64 = 8;
/// What a file takes besides its content.
const BLOCK: u64 = 4096;

impl Git {
    /// Refuses files that the quota of a sandbox, or the volume, has no room for.
    pub(super) fn require_room(&self, what: &str, bytes: u64) -> Result<(), GitError> {
        let mib = bytes >> 20;
        if let Some(quota) = self.settings().quota.filter(|quota| bytes > *quota) {
            return Err(GitError::Unusable(format!(
                "{what} takes {mib} MiB, more than AWO_SANDBOX_QUOTA ({}): raise the quota, or name the \
                 folders that are needed (sparse paths in the repository's policy)",
                size_text(quota)
            )));
        }
        match SystemDisk.space(self.volume().root()) {
            Ok(space) if space.total_bytes < bytes => Err(GitError::Unusable(format!(
                "{what} takes {mib} MiB, more than the whole volume has"
            ))),
            Ok(space) if space.free_bytes < bytes => Err(GitError::DiskFull {
                doing: "checking out".to_owned(),
                detail: format!("{what} takes {mib} MiB, and {} are free", space.free_bytes >> 20),
            }),
            _ => Ok(()),
        }
    }

    /// Does work that writes files into a folder, and ends it when they take more than the quota.
    pub(super) async fn within_quota<T>(
        &self,
        folder: &Path,
        weight: Weight,
        work: impl Future<Output = Result<T, GitError>>,
    ) -> Result<T, GitError> {
        let at_most = weight.bytes.saturating_mul(GROWTH).saturating_add(weight.files * BLOCK * 2);
        let Some(quota) = self.settings().quota.filter(|quota| at_most > *quota) else {
            return work.await;
        };
        let done = tokio::select! {
            biased;
            done = work => done?,
            excess = watch(folder, quota) => return Err(excess),
        };
        match excess(folder, quota).await? {
            Some(excess) => Err(excess),
            None => Ok(done),
        }
    }
}

async fn watch(folder: &Path, quota: u64) -> GitError {
    loop {
        let began = tokio::time::Instant::now();
        match excess(folder, quota).await {
            Ok(Some(excess)) => return excess,
            Ok(None) => {}
            // The work itself will say what is wrong with its folder.
            Err(error) => tracing::debug!("a checkout cannot be measured: {error}"),
        }
        tokio::time::sleep(PACE.max(began.elapsed() * SHARE)).await;
    }
}

async fn excess(folder: &Path, quota: u64) -> Result<Option<GitError>, GitError> {
    let place = folder.to_owned();
    let measured = reading(move |look| {
        usage(&place, &|| look.go_on().is_ok()).map_err(GitError::file("measure", &place))
    });
    Ok(Some(measured.await?.bytes).filter(|bytes| *bytes > quota).map(|bytes| {
        GitError::Unusable(format!(
            "the checkout takes {} MiB and more on disk, more than AWO_SANDBOX_QUOTA ({}): raise the quota, \
             or name the folders that are needed (sparse paths in the repository's policy)",
            bytes >> 20,
            size_text(quota)
        ))
    }))
}
