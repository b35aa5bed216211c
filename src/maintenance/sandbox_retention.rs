//! Takes the sandboxes of ended orders away when they are old enough, after saving what is only in them.

use std::{convert::Infallible, future::pending, sync::Mutex};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Maintenance, Stopped, Sweep, SweepError, SweepReport, Urgency, sandboxes::Action};
use crate::{
    config::{RetentionConfig, RetentionPolicy},
    lease::Lease,
    store::Store,
};

/// How long sandboxes are kept. A change in files or table counts from the next look on; one that
/// cannot be understood does not.
#[derive(Debug)]
pub struct SandboxPolicy {
    config: RetentionConfig,
    last: Mutex<RetentionPolicy>,
}

impl SandboxPolicy {
    /// The policy with which the process started.
    pub fn new(config: RetentionConfig) -> Self {
        Self { last: Mutex::new(config.policy()), config }
    }

    /// The policy as it is now.
    pub async fn current(&self, store: &Store) -> RetentionPolicy {
        let rows = store.settings(&RetentionConfig::rows()).await.unwrap_or_else(|error| {
            warn!("cannot read archon_settings, so files and environment count: {error}");
            Vec::new()
        });
        let current = self.config.current(&rows);
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match current {
            Ok(policy) => *last = policy,
            Err(error) => warn!("sandboxes are kept as long as before: {error}"),
        }
        *last
    }
}

impl Maintenance {
    pub(super) async fn sandbox_retention(&self, lease: &Lease) -> Result<(), Stopped> {
        let stop = CancellationToken::new();
        let told = async {
            lease.stopped().await;
            stop.cancel();
            pending::<Infallible>().await
        };
        let swept = tokio::select! {
            swept = self.sweep(Urgency::Scheduled, &stop) => swept,
            never = told => match never {},
        };
        match swept {
            Ok(_) => lease.stop_reason().map_or(Ok(()), |reason| Err(Stopped::Told(reason))),
            Err(SweepError::Store(error)) => Err(Stopped::Store(error)),
            Err(SweepError::Volume(error)) => Err(Stopped::Volume(error.sentence())),
        }
    }

    /// Takes away what may go on the volumes of this host, and says what became of it.
    pub async fn sweep(
        &self,
        urgency: Urgency,
        stop: &CancellationToken,
    ) -> Result<SweepReport, SweepError> {
        let policy = self.sandbox_policy.current(&self.store).await;
        let history_days = self.history.orders;
        // Nobody is there to say what database this is.
        let sweep = Sweep { policy, history_days, urgency, unknown: false, dry_run: false };
        let report = self
            .sandboxes
            .sweep(
                &sweep,
                &|item, _| {
                    if item.action == Action::Failed {
                        let reason = item.reason.as_deref().unwrap_or_default();
                        warn!(work_order.id = item.order, "a sandbox stays: {reason}");
                    }
                },
                stop,
            )
            .await?;
        for problem in &report.problems {
            warn!("while cleaning up sandboxes: {problem}");
        }
        info!(
            removed = report.count(Action::Removed),
            saved = report.items.iter().filter(|item| item.saved.is_some()).count(),
            kept = report.count(Action::Kept),
            busy = report.count(Action::Busy),
            failed = report.count(Action::Failed),
            entries = report.entries(),
            order_folders = report.order_folders.len(),
            "cleaned up sandboxes"
        );
        Ok(report)
    }
}
