//! What a job of each kind does. Adding a kind is adding an arm here.

use std::sync::Arc;

use futures::FutureExt;

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
        other => context.maintenance.run(other, lease).await.unwrap_or_else(|| {
            let known = "work_order, retention, rescue_check, heartbeat_report, sandbox_retention or repository_cache_maintenance";
            let sentence = format!("kind {other:?} is not known to this archon-awo: expected {known}");
            Settlement::Failed(ErrorClass::Invalid, sentence)
        }),
    }
}
