//! What a job of each kind does. Adding a kind is adding an arm here.

use std::sync::Arc;

use crate::{
    clock::Clock,
    domain::ErrorClass,
    lease::Lease,
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
}

/// Runs one claimed job to an outcome. It never fails: every failure is an outcome.
pub async fn run(context: &Arc<JobContext>, job: &Claimed, lease: &Lease) -> Settlement {
    match job.kind.as_str() {
        "work_order" => context.workflow.run(job, lease).await,
        other => Settlement::Failed(
            ErrorClass::Invalid,
            format!("kind {other:?} is not known to this archon-awo: expected work_order"),
        ),
    }
}
