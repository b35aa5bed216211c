//! Records how a run ended, however long the database takes to listen.

use std::{borrow::Cow, time::Duration};

use tracing::{info, warn};

use super::JobContext;
use crate::{domain::ErrorClass, lease::Lease, store::Settlement};

/// Stores the settlement under the lease's fence. Tries until the database answers or the lease is
/// lost: a finished run is not thrown away because Postgres restarts.
pub async fn settle(context: &JobContext, lease: &Lease, settlement: &Settlement) {
    let fence = lease.fence();
    let lost = lease.lost_token();
    let mut wait = Duration::from_millis(200);
    let mut settlement = Cow::Borrowed(settlement);
    loop {
        match context.store.settle(fence, &settlement).await {
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
            Err(error) if !error.is_transient() && matches!(settlement, Cow::Borrowed(_)) => {
                // Left to rescue it would run again only to end the same way.
                tracing::error!(job.id = fence.job_id, "cannot settle as it ended: {error}");
                let class = settlement.class().unwrap_or(ErrorClass::ToolError);
                let words = format!("the outcome of the run could not be stored: {error}");
                settlement = Cow::Owned(Settlement::Failed(class, words.replace('\0', " ")));
                continue;
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
