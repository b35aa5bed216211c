//! Records how runs ended, however long the database takes to listen.
//!
//! Runs that end while a statement is on its way are settled together by the next one: one commit
//! for all of them, and no wait for a run that ends alone.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::{
    clock::Clock,
    domain::ErrorClass,
    lease::Lease,
    store::{Fence, Settled, Settlement, Store, StoreError},
    telemetry::Metrics,
};

/// Most settlements in one statement.
const BATCH: usize = 256;
/// How long a worker that is to stop at once tries to settle: whoever stops it kills it after some time,
/// and other workers take its orders over.
const FAREWELL: Duration = Duration::from_secs(15);

type Answer = Result<Option<Settled>, Arc<StoreError>>;

/// A settlement on its way into the next statement.
struct Waiting {
    fence: Fence,
    settlement: Settlement,
    answer: oneshot::Sender<Answer>,
}

/// Settles the jobs of one process.
pub struct Settler {
    store: Store,
    waiting: Mutex<Vec<Waiting>>,
    /// Whoever holds it sends what waits, its own and that of the others.
    turn: tokio::sync::Mutex<()>,
}

impl Settler {
    /// A settler with nothing to do.
    pub fn new(store: Store) -> Self {
        Self { store, waiting: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Stores the settlement under the lease's fence. Tries until the database answers or the lease
    /// is lost: a finished run is not thrown away because Postgres restarts. A worker that is to stop does
    /// not wait for that long. Answers what the database made of it; nothing when it was refused, or is
    /// left to a rescue.
    pub async fn settle(
        &self,
        clock: &Clock,
        metrics: &Metrics,
        lease: &Lease,
        settlement: &Settlement,
    ) -> Option<Settled> {
        let out_of_time = async {
            lease.drained().await;
            clock.sleep(FAREWELL).await;
        };
        tokio::select! {
            settled = self.settle_patiently(clock, metrics, lease, settlement) => settled,
            () = out_of_time => {
                let job = lease.fence().job_id;
                warn!(job.id = job, "not settled: the worker stops, and the database does not answer");
                None
            }
        }
    }

    async fn settle_patiently(
        &self,
        clock: &Clock,
        metrics: &Metrics,
        lease: &Lease,
        settlement: &Settlement,
    ) -> Option<Settled> {
        let fence = lease.fence();
        let lost = lease.lost_token();
        let mut wait = Duration::from_millis(200);
        let mut settlement = Cow::Borrowed(settlement);
        loop {
            match self.submit(fence, settlement.clone().into_owned()).await {
                Ok(Some(settled)) => {
                    let Settled { state, outcome, class, .. } = &settled;
                    info!(job.id = fence.job_id, ?state, outcome, class, "job settled");
                    return Some(settled);
                }
                Ok(None) => {
                    warn!(
                        job.id = fence.job_id,
                        epoch = fence.epoch,
                        "settlement refused: stale epoch"
                    );
                    metrics.stale_write_refused();
                    return None;
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
                    return None;
                }
                Err(error) => warn!(job.id = fence.job_id, "cannot settle yet: {error}"),
            }
            tokio::select! {
                () = lost.cancelled() => {
                    warn!(job.id = fence.job_id, "not settled: the lease is lost");
                    metrics.stale_write_refused();
                    return None;
                }
                () = clock.sleep(wait) => {}
            }
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    /// Puts one settlement into the next statement and waits for its answer.
    async fn submit(&self, fence: Fence, settlement: Settlement) -> Answer {
        let (sender, mut answer) = oneshot::channel();
        self.lock().push(Waiting { fence, settlement, answer: sender });
        loop {
            tokio::select! {
                biased;
                answered = &mut answer => match answered {
                    Ok(answered) => return answered,
                    // Whoever carried it was dropped before it could say.
                    Err(_) => return Err(Arc::new(StoreError {
                        statement: "queue/settle",
                        source: sqlx::Error::WorkerCrashed,
                    })),
                },
                _turn = self.turn.lock() => {
                    let batch = self.gather().await;
                    self.send(batch).await;
                }
            }
        }
    }

    /// What waits, with the runs that end at this moment: as long as more do, the statement waits for
    /// them, once around the runtime's queue each time.
    async fn gather(&self) -> Vec<Waiting> {
        let mut seen = 0;
        loop {
            tokio::task::yield_now().await;
            let mut waiting = self.lock();
            if waiting.len() == seen || waiting.len() >= BATCH {
                let size = waiting.len().min(BATCH);
                return waiting.drain(..size).collect();
            }
            seen = waiting.len();
        }
    }

    async fn send(&self, batch: Vec<Waiting>) {
        if batch.is_empty() {
            return;
        }
        let asked: Vec<_> = batch.iter().map(|one| (one.fence, &one.settlement)).collect();
        match self.store.settle(&asked).await {
            Ok(settled) => {
                for one in batch {
                    let row = settled.iter().find(|row| row.fence() == one.fence);
                    // The run may be gone; its job is settled all the same.
                    let _ = one.answer.send(Ok(row.cloned()));
                }
            }
            // One that cannot be stored must not keep the others from it.
            Err(error) if !error.is_transient() && batch.len() > 1 => {
                for one in batch {
                    let alone = self.store.settle(&[(one.fence, &one.settlement)]).await;
                    let row = alone.map(|rows| rows.into_iter().next());
                    let _ = one.answer.send(row.map_err(Arc::new));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for one in batch {
                    let _ = one.answer.send(Err(Arc::clone(&error)));
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
