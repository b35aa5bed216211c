//! What a job of each kind does. Adding a kind is adding an arm here.

use std::sync::Arc;

use futures::FutureExt;
use tracing::warn;

use super::engine::Handler;
use crate::{
    clock::Clock,
    domain::ErrorClass,
    lease::Lease,
    maintenance::Maintenance,
    put_back,
    store::{Claimed, Settlement, Store},
    telemetry::Metrics,
    workflow::Workflow,
};

/// The kinds that [`run`] knows.
pub const KINDS: [&str; 6] = [
    "work_order",
    "retention",
    "rescue_check",
    "heartbeat_report",
    "sandbox_retention",
    "repository_cache_maintenance",
];

/// What a job may touch.
pub struct JobContext {
    /// The database.
    pub store: Store,
    /// Time and randomness.
    pub clock: Clock,
    /// Counters.
    pub metrics: Metrics,
    /// Runs work orders.
    pub workflow: Workflow,
    /// Runs the jobs of the product itself.
    pub maintenance: Maintenance,
}

/// Runs every job by its kind.
pub fn handler(context: Arc<JobContext>) -> Handler {
    Arc::new(move |job, lease| {
        let context = Arc::clone(&context);
        async move { run(&context, &job, &lease).await }.boxed()
    })
}

async fn run(context: &Arc<JobContext>, job: &Claimed, lease: &Lease) -> Settlement {
    match job.kind.as_str() {
        "work_order" => context.workflow.run(job, lease).await,
        other => match context.maintenance.run(other, lease).await {
            Some(settlement) => settlement,
            None => unknown(context, job).await,
        },
    }
}

/// A job of a kind that only a newer program knows: it is put back, for a worker that is new already.
/// Where no worker comes to know it, the job ends after about an hour, with a sentence.
async fn unknown(context: &JobContext, job: &Claimed) -> Settlement {
    let kind = &job.kind;
    if put_back::is_spent(job) {
        let versions = match context.store.worker_versions().await {
            Ok(versions) => spelled(&versions),
            Err(error) => format!("not known: {error}"),
        };
        let times = put_back::history(job);
        let known = KINDS.join(", ");
        let sentence = format!(
            "no worker knows the kind {kind:?}: {times}; versions of the workers that are alive: {versions}; \
             start a worker of a version that knows it and requeue the job, or order one of these kinds: {known}"
        );
        return Settlement::Failed(ErrorClass::Invalid, sentence);
    }
    warn!(job.id = job.job_id, kind, "put back a job of a kind this archon-awo does not know");
    let sentence = format!("kind {kind:?} is not known to this archon-awo: left to a newer one");
    put_back::put_back(&context.clock, job, sentence)
}

/// Versions with the number of workers that run each.
fn spelled(versions: &[(String, i64)]) -> String {
    let each = versions.iter().map(|(version, workers)| match workers {
        1 => format!("{version} (1 worker)"),
        _ => format!("{version} ({workers} workers)"),
    });
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::spelled;

    #[test]
    fn versions_are_told_with_the_number_of_their_workers() {
        let versions = [("0.1.0".to_owned(), 1), ("0.2.0".to_owned(), 3)];
        assert_eq!(spelled(&versions), "0.1.0 (1 worker), 0.2.0 (3 workers)");
    }
}
