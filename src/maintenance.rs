//! The jobs that keep the product itself in order, one file per kind. Schedules order them; each is safe
//! to run at any time, twice, and beside itself on another host.

pub mod claim_report;
mod disk_watch;
mod free_space;
mod heartbeat_report;
mod repository_cache;
mod rescue_check;
mod retention;
mod sandbox_retention;
mod sandboxes;

use std::{sync::Arc, time::Duration};

use crate::{
    clock::Clock,
    config::HistoryConfig,
    domain::ErrorClass,
    git::{CacheLimits, Git},
    lease::{Lease, LeaseKeeper, StopReason},
    store::{Settlement, Store, StoreError},
    telemetry::Metrics,
};

pub use disk_watch::{Cleanup, DiskWatch};
pub use sandbox_retention::SandboxPolicy;
pub use sandboxes::{Action, Item, Sandboxes, Sweep, SweepError, SweepReport, Urgency};

/// Wait before a job of the product's own is tried again.
const RETRY: Duration = Duration::from_mins(1);

/// What these jobs may touch.
pub struct Maintenance {
    /// The database.
    pub store: Store,
    /// Time and randomness.
    pub clock: Clock,
    /// Counters.
    pub metrics: Metrics,
    /// How long history is kept.
    pub history: HistoryConfig,
    /// Tells this worker to look for dead ones.
    pub keeper: Arc<LeaseKeeper>,
    /// The repository volume of this host.
    pub git: Git,
    /// How much its caches may keep.
    pub cache: CacheLimits,
    /// Takes sandboxes away.
    pub sandboxes: Sandboxes,
    /// How long they are kept, as it was read last.
    pub sandbox_policy: SandboxPolicy,
}

/// Why a job of this kind ended early.
enum Stopped {
    /// It was told to.
    Told(StopReason),
    /// The database refused.
    Store(StoreError),
    /// The volume refused.
    Volume(String),
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Maintenance {
    /// Runs a job of `kind` to its end; `None` when that is none of these.
    pub async fn run(&self, kind: &str, lease: &Lease) -> Option<Settlement> {
        let work = async {
            match kind {
                "retention" => Some(self.retention(lease).await),
                "rescue_check" => Some(self.rescue_check().await),
                "heartbeat_report" => Some(self.heartbeat_report().await),
                "repository_cache_maintenance" => Some(self.repository_cache().await),
                _ => None,
            }
        };
        let result = if kind == "sandbox_retention" {
            // It has points at which it must not be dropped, and hears of a stop by itself.
            self.sandbox_retention(lease).await
        } else {
            tokio::select! {
                biased;
                result = work => result?,
                reason = lease.stopped() => Err(Stopped::Told(reason)),
            }
        };
        Some(match result {
            Ok(()) => Settlement::Succeeded(None),
            Err(Stopped::Told(StopReason::Cancelled)) => {
                Settlement::Cancelled(lease.cancel_reason())
            }
            Err(Stopped::Told(_)) => {
                Settlement::Interrupted("the worker stopped before it had ended".to_owned())
            }
            Err(Stopped::Store(error)) if error.is_transient() => {
                Settlement::Retried(ErrorClass::LostWorker, error.to_string(), RETRY)
            }
            Err(Stopped::Store(error)) => {
                Settlement::Failed(ErrorClass::ToolError, error.to_string())
            }
            Err(Stopped::Volume(error)) => Settlement::Failed(ErrorClass::Disk, error),
        })
    }
}
