//! Measures a sandbox while an agent works in it, and ends the agent when it takes too much disk.
//!
//! Between two looks an agent may take more than its quota; what protects the volume from that are
//! the marks of free space.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::failure::Failure;
use crate::{
    agent::looking_as_owner,
    clock::Clock,
    disk::{DiskSpace, Usage, size_text, usage},
    domain::ErrorClass,
};

/// Shortest time between two looks.
const PACE: Duration = Duration::from_secs(5);
/// A look may take one part in so many of the time: large sandboxes are measured less often.
const SHARE: u32 = 20;

/// What may be taken, and how it is measured.
#[derive(Debug, Clone)]
pub struct Quota {
    /// Bytes on disk.
    pub bytes: u64,
    /// Tells the free space of the volume.
    pub disk: Arc<dyn DiskSpace>,
}

/// One sandbox being measured.
#[derive(Debug)]
pub struct QuotaWatch {
    task: JoinHandle<Option<Usage>>,
    quota: u64,
    ended: CancellationToken,
}

impl Quota {
    /// Measures `sandbox` until [`QuotaWatch::end`], and cancels `agent` when it is over the quota.
    pub fn watch(&self, sandbox: PathBuf, clock: Clock, agent: CancellationToken) -> QuotaWatch {
        let ended = CancellationToken::new();
        let measured = measure(self.clone(), sandbox, clock, agent, ended.clone());
        QuotaWatch { task: tokio::spawn(measured), quota: self.bytes, ended }
    }

    /// One look; nothing when the sandbox cannot be over, or the run has ended meanwhile.
    async fn excess(&self, sandbox: &Path, ended: &CancellationToken) -> Option<Usage> {
        let (disk, folder, ended) = (Arc::clone(&self.disk), sandbox.to_owned(), ended.clone());
        let quota = self.bytes;
        let look = move || {
            // A volume that holds less in all needs no walk.
            let space = disk.space(&folder).ok()?;
            if space.total_bytes.saturating_sub(space.free_bytes) <= quota {
                return None;
            }
            let measure = || usage(&folder, &|| !ended.is_cancelled());
            let found = looking_as_owner(&folder, measure).ok()?;
            let over = found.bytes > quota || found.incomplete && !ended.is_cancelled();
            over.then_some(found)
        };
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }
}

async fn measure(
    quota: Quota,
    sandbox: PathBuf,
    clock: Clock,
    agent: CancellationToken,
    ended: CancellationToken,
) -> Option<Usage> {
    loop {
        let began = clock.now();
        if let Some(found) = quota.excess(&sandbox, &ended).await {
            warn!(
                sandbox = %sandbox.display(), bytes = found.bytes, quota = quota.bytes,
                "the sandbox is over its quota: its agent is stopped"
            );
            agent.cancel();
            return Some(found);
        }
        let pause = PACE.max((clock.now() - began) * SHARE);
        tokio::select! {
            () = ended.cancelled() => return None,
            () = clock.sleep(pause) => {}
        }
    }
}

impl QuotaWatch {
    /// Ends the measuring; the failure of an agent that was stopped by it. No retry can mend that:
    /// it would begin with the same sandbox.
    pub async fn end(self) -> Option<Failure> {
        self.ended.cancel();
        let found = self.task.await.ok().flatten()?;
        let quota = size_text(self.quota);
        let taken = if found.bytes > self.quota {
            format!(
                "takes {} on disk, more than AWO_SANDBOX_QUOTA ({quota})",
                size_text(found.bytes)
            )
        } else {
            "has folders nested too deep to be measured".to_owned()
        };
        let text = format!(
            "the agent was stopped because its sandbox {taken}: have it remove what it does not \
             need, split the request, or raise the quota, and requeue the order"
        );
        Some(Failure::lasting(ErrorClass::Disk, text))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io, path::Path, sync::Arc, time::Duration};

    use tokio_util::sync::CancellationToken;

    use super::Quota;
    use crate::{
        clock::Clock,
        disk::{DiskSpace, Space},
        domain::ErrorClass,
    };

    /// A volume on which much is used.
    #[derive(Debug)]
    struct Used(u64);

    impl DiskSpace for Used {
        fn space(&self, _: &Path) -> io::Result<Space> {
            Ok(Space { total_bytes: 1 << 40, free_bytes: (1 << 40) - self.0, ..Space::default() })
        }
    }

    fn quota(bytes: u64, used: u64) -> Quota {
        Quota { bytes, disk: Arc::new(Used(used)) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sandbox_that_grows_over_its_quota_stops_its_agent() {
        let sandbox = tempfile::tempdir().unwrap();
        let agent = CancellationToken::new();
        let watch = quota(1 << 20, 1 << 30).watch(
            sandbox.path().to_owned(),
            Clock::system(),
            agent.clone(),
        );
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(!agent.is_cancelled());
        fs::write(sandbox.path().join("large"), vec![1; 2 << 20]).unwrap();
        tokio::time::timeout(Duration::from_mins(1), agent.cancelled()).await.unwrap();
        let failure = watch.end().await.unwrap();
        assert_eq!((failure.class, failure.retryable), (ErrorClass::Disk, false));
        assert!(failure.message.contains("takes 2 MiB"), "{}", failure.message);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sandbox_within_its_quota_is_left_alone() {
        let sandbox = tempfile::tempdir().unwrap();
        fs::write(sandbox.path().join("file"), vec![1; 2 << 20]).unwrap();
        // Room enough in the first; in the second the volume holds less than the quota in all.
        for quota in [quota(4 << 20, 1 << 30), quota(1 << 20, 1 << 19)] {
            let agent = CancellationToken::new();
            let watch = quota.watch(sandbox.path().to_owned(), Clock::system(), agent.clone());
            tokio::time::sleep(Duration::from_mins(1)).await;
            assert!(!agent.is_cancelled());
            assert!(watch.end().await.is_none());
        }
    }
}
