//! Takes back the jobs of dead workers. Every replica does so; the statement decides who wins.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::engine::Engine;

/// Longest wait between a heartbeat that shows an expired lease and the rescue: replicas that see it
/// at once need not all try at once.
const SPREAD: Duration = Duration::from_millis(500);

/// Rescues whenever a heartbeat of this worker shows an expired lease, until `stop`.
///
/// Holds off for one lease after this worker's own heartbeats failed: then the leases of healthy
/// neighbours may have expired for the same reason.
pub async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let Engine { keeper, clock, timings, .. } = &*engine;
    let pulse = keeper.pulse();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = keeper.rescue_due() => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = clock.sleep(clock.between(Duration::ZERO, SPREAD)) => {}
        }
        let seen = *pulse.borrow();
        let hold_off = timings.lease + timings.rescue_grace;
        let unsure =
            seen.is_failing() || seen.failed.is_some_and(|failed| clock.now() < failed + hold_off);
        if unsure {
            continue;
        }
        match engine.store.rescue(timings.rescue_grace, timings.lease).await {
            Ok(rescued) => {
                engine.metrics.rescued(rescued.len() as u64);
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
            Err(error) => warn!("cannot take over from dead workers: {error}"),
        }
    }
}
