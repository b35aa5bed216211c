//! What a job of each kind does. Adding a kind is adding an arm here.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use tracing::warn;

use super::engine::Handler;
use crate::{
    clock::Clock,
    domain::ErrorClass,
    lease::Lease,
    maintenance::Maintenance,
    store::{Claimed, Settlement, Store},
    telemetry::Metrics,
    workflow::Workflow,
};

/// How often a job of an unknown kind is put back before it fails.
const PATIENCE: i64 = 60;
/// How long it is left alone each time.
const PAUSE: Duration = Duration::from_mins(1);

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
        other => context.maintenance.run(other, lease).await.unwrap_or_else(|| unknown(job)),
    }
}

/// A job of a kind that only a newer program knows: it is put back, for a worker that is new already.
/// Where no worker comes to know it, the job ends after about an hour, with a sentence.
fn unknown(job: &Claimed) -> Settlement {
    let kind = &job.kind;
    // The epoch counts the claims, and goes on counting after a requeue.
    if job.epoch % PATIENCE == 0 {
        let known = "work_order, retention, rescue_check, heartbeat_report, sandbox_retention or repository_cache_maintenance";
        let sentence = format!(
            "kind {kind:?} is not known to the workers, which put the job back {PATIENCE} times: expected {known}"
        );
        return Settlement::Failed(ErrorClass::Invalid, sentence);
    }
    warn!(job.id = job.job_id, kind, "put back a job of a kind this archon-awo does not know");
    let sentence = format!("kind {kind:?} is not known to this archon-awo: left to a newer one");
    Settlement::PutBack(sentence, PAUSE)
}

#[cfg(test)]
mod tests {
    use super::{PATIENCE, PAUSE, unknown};
    use crate::{
        domain::ErrorClass,
        store::{Claimed, Settlement},
    };

    fn job(epoch: i64) -> Claimed {
        Claimed {
            job_id: 1,
            epoch,
            kind: "prune_artifacts".to_owned(),
            work_order_id: None,
            attempt: 1,
            max_attempts: 3,
            crash_count: 0,
            waits: 0,
            payload: serde_json::json!({}),
            traceparent: None,
            queue: "maintenance".to_owned(),
            waited_seconds: 0.0,
        }
    }

    #[test]
    fn a_job_of_an_unknown_kind_is_put_back_for_an_hour_and_then_fails() {
        for epoch in (1..PATIENCE).chain([PATIENCE + 1, 2 * PATIENCE - 1]) {
            let settled = unknown(&job(epoch));
            assert!(matches!(settled, Settlement::PutBack(_, PAUSE)), "{epoch}: {settled:?}");
        }
        for epoch in [PATIENCE, 2 * PATIENCE] {
            let Settlement::Failed(ErrorClass::Invalid, sentence) = unknown(&job(epoch)) else {
                panic!("{epoch}: put back for ever");
            };
            assert!(sentence.starts_with("kind \"prune_artifacts\" is not known"), "{sentence}");
        }
    }
}
