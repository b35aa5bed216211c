//! Takes back the jobs of dead workers. Every replica does so; the statement decides who wins.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::JobContext;
use crate::{config::QueueConfig, lease::LeaseKeeper};

/// Looks for expired leases until `stop`.
///
/// Holds off for one lease after this worker's own heartbeats failed: then the leases of healthy
/// neighbours may have expired for the same reason.
pub async fn run(
    context: Arc<JobContext>,
    keeper: Arc<LeaseKeeper>,
    timings: QueueConfig,
    stop: CancellationToken,
) {
    let pulse = keeper.pulse();
    let (low, high) = (timings.rescue_grace, timings.rescue_grace * 2);
    loop {
        let wait = context.clock.between(low.max(Duration::from_millis(200)), high);
        tokio::select! {
            () = stop.cancelled() => return,
            () = context.clock.sleep(wait) => {}
        }
        let seen = *pulse.borrow();
        let now = context.clock.now();
        let unsure = seen.is_failing()
            || seen
                .failed
                .is_some_and(|failed| now < failed + timings.lease + timings.rescue_grace);
        if unsure {
            continue;
        }
        match context.store.rescue(timings.rescue_grace, timings.lease).await {
            Ok(rescued) => {
                context.metrics.rescued(rescued.len() as u64);
                for job in rescued {
                    warn!(
                        job.id = job.job_id,
                        work_order.id = job.work_order_id,
                        worker.id = %job.worker_id,
                        silent_seconds = job.silent_seconds,
                        state = ?job.state,
                        "rescued a job from a dead worker"
                    );
                }
            }
            Err(error) => warn!("cannot look for dead workers: {error}"),
        }
    }
}
