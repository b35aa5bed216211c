//! Records how a run ended, however long the database takes to listen.

use std::time::Duration;

use tracing::{info, warn};

use super::JobContext;
use crate::{lease::Lease, store::Settlement};

/// Stores the settlement under the lease's fence. Tries until the database answers or the lease is
/// lost: a finished run is not thrown away because Postgres restarts.
pub async fn settle(context: &JobContext, lease: &Lease, settlement: &Settlement) {
    let fence = lease.fence();
    let lost = lease.lost_token();
    let mut wait = Duration::from_millis(200);
    loop {
        match context.store.settle(fence, settlement).await {
            Ok(Some(state)) => {
                info!(job.id = fence.job_id, ?state, class = ?settlement.class(), "job settled");
                return;
            }
            Ok(None) => {
                warn!(
                    job.id = fence.job_id,
                    epoch = fence.epoch,
                    "settlement refused: stale epoch"
                );
                context.metrics.stale_write_refused();
                return;
            }
            Err(error) if !error.is_transient() => {
                tracing::error!(
                    job.id = fence.job_id,
                    "cannot settle, leaving it to rescue: {error}"
                );
                return;
            }
            Err(error) => warn!(job.id = fence.job_id, "cannot settle yet: {error}"),
        }
        tokio::select! {
            () = lost.cancelled() => {
                warn!(job.id = fence.job_id, "not settled: the lease is lost");
                context.metrics.stale_write_refused();
                return;
            }
            () = context.clock.sleep(wait) => {}
        }
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}
