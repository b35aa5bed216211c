//! What all lanes of one worker process share: the database, the leases, the way jobs are settled.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::settle::Settler;
use crate::{
    clock::Clock,
    config::QueueConfig,
    lease::{Lease, LeaseKeeper},
    store::{Claimed, Settlement, Store},
    telemetry::Metrics,
};

/// Runs one claimed job to an outcome. It never fails: every failure is an outcome.
pub type Handler = Arc<dyn Fn(Claimed, Lease) -> BoxFuture<'static, Settlement> + Send + Sync>;

/// One worker process as the queue sees it.
pub struct Engine {
    /// The id of this process.
    pub worker_id: Uuid,
    /// The database.
    pub store: Store,
    /// Time and randomness.
    pub clock: Clock,
    /// Counters.
    pub metrics: Metrics,
    /// The numbers.
    pub timings: QueueConfig,
    /// Holds the leases.
    pub keeper: Arc<LeaseKeeper>,
    /// Cancelled when no new job may be claimed.
    pub drain: CancellationToken,
    settler: Settler,
}

impl Engine {
    /// An engine that has claimed nothing.
    pub fn new(
        worker_id: Uuid,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        timings: QueueConfig,
        keeper: Arc<LeaseKeeper>,
        drain: CancellationToken,
    ) -> Arc<Self> {
        let settler = Settler::new(store.clone());
        Arc::new(Self { worker_id, store, clock, metrics, timings, keeper, drain, settler })
    }

    /// Stores how the run under `lease` ended, however long the database takes to listen, and counts what
    /// the database made of it.
    pub async fn settle(&self, lease: &Lease, settlement: &Settlement) {
        let settled = self.settler.settle(&self.clock, &self.metrics, lease, settlement).await;
        if let Some(settled) = settled {
            self.metrics.job_finished(&settled.outcome, settled.class.as_deref());
        }
    }
}
