//! Takes back the jobs of dead workers. Every replica does so; the statement decides who wins.
//!
//! A lease that looks dead may belong to a worker that lives: the server was away, its clock jumped,
//! or a whole host stood still. So nothing is taken at first sight.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::engine::Engine;
use crate::{
    domain::{ErrorClass, JobState},
    store::{Expired, Rescued, StoreError},
    workflow::Workflow,
};

/// Random part of the wait between the two looks: replicas that see the same lease run out need not
/// all try at once.
const SPREAD: Duration = Duration::from_millis(500);
/// How much longer than its heartbeat a living worker may take to renew its leases.
const LATE_BEAT: Duration = Duration::from_secs(1);

/// Looks twice whenever a heartbeat of this worker shows an expired lease, until `stop`. What the agents of an order
/// consumed that ended with its worker is counted by `workflow`.
pub async fn run(engine: Arc<Engine>, workflow: Workflow, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = engine.keeper.rescue_due() => {}
        }
        let rescued = tokio::select! {
            () = stop.cancelled() => return,
            rescued = look_twice(&engine) => rescued,
        };
        match rescued {
            Ok(rescued) => {
                report(&engine, &rescued);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = count_last_runs(&workflow, &rescued) => {}
                }
            }
            Err(error) => warn!("cannot take over from dead workers: {error}"),
        }
    }
}

/// Takes back the jobs whose leases have run out and are not renewed within the time that a living
/// owner takes to do so.
async fn look_twice(engine: &Engine) -> Result<Vec<Rescued>, StoreError> {
    let Engine { clock, timings, store, .. } = engine;
    if is_unsure(engine) {
        return Ok(Vec::new());
    }
    let first_look = clock.boot_time();
    let seen: Vec<Expired> = store.expired_leases().await?;
    if seen.is_empty() {
        return Ok(Vec::new());
    }
    let beat = timings.heartbeat + timings.heartbeat.min(LATE_BEAT);
    let patience = beat.max(timings.rescue_grace);
    clock.sleep(clock.between(patience, patience + SPREAD)).await;
    let waited = clock.boot_time().saturating_sub(first_look);
    if waited > patience * 2 + SPREAD || is_unsure(engine) {
        // This worker stood still itself, perhaps together with the owners: look again.
        return Ok(Vec::new());
    }
    let rescued = store.rescue(&seen, timings.rescue_grace, timings.lease).await?;
    if rescued.len() < seen.len() {
        info!(
            seen = seen.len(),
            rescued = rescued.len(),
            "leases that had run out were renewed, or taken over by others"
        );
    }
    Ok(rescued)
}

/// Whether this worker's own heartbeats failed within the last lease: then the leases of healthy
/// neighbours may have expired for the same reason.
fn is_unsure(engine: &Engine) -> bool {
    let Engine { keeper, clock, timings, .. } = engine;
    let pulse = keeper.pulse().borrow().clone();
    let hold_off = timings.lease + timings.rescue_grace;
    pulse.is_failing() || pulse.failed.is_some_and(|failed| clock.now() < failed + hold_off)
}

/// Nobody goes on with these orders, and so nobody else reads what their last agents printed.
async fn count_last_runs(workflow: &Workflow, rescued: &[Rescued]) {
    for job in rescued {
        if let (JobState::Failed | JobState::Cancelled, Some(order)) =
            (job.state, &job.work_order_id)
        {
            workflow.count_runs_of_ended(job.job_id, order).await;
        }
    }
}

fn report(engine: &Engine, rescued: &[Rescued]) {
    engine.metrics.rescued(rescued.len() as u64);
    for job in rescued {
        // Nobody else counts these: their worker is dead.
        let (outcome, class) = match job.state {
            JobState::Failed => ("failed", ErrorClass::LostWorker),
            JobState::Cancelled => ("cancelled", ErrorClass::Cancelled),
            _ => ("crashed", ErrorClass::LostWorker),
        };
        engine.metrics.job_finished(outcome, Some(class.as_str()));
        warn!(
            job.id = job.job_id,
            work_order.id = job.work_order_id,
            worker.id = %job.worker_id,
            worker.was = job.worker_was,
            silent_seconds = job.silent_seconds,
            state = ?job.state,
            "rescued a job from a dead worker"
        );
    }
}
