//! The only module that names apalis: it gives the worker loop, the concurrency limit and the
//! layers; claims and leases are ours.
//!
//! apalis asks for one task at a time; the claim takes as many as there are free slots in one
//! statement and hands them over one by one. Nothing is fetched ahead of a free slot.

use std::{
    collections::VecDeque,
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use apalis::prelude::{WorkerBuilder, WorkerBuilderExt, WorkerContext};
use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    error::{BoxDynError, WorkerError},
    task::{Task, builder::TaskBuilder, task_id::TaskId},
};
use futures::{FutureExt, future::BoxFuture, ready};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::{JobContext, kinds, settle::settle, wake::Wake};
use crate::{
    config::QueueConfig,
    domain::ErrorClass,
    lease::{Lease, LeaseKeeper},
    store::{Claimed, Settlement},
};

/// A claimed job with its lease and the slot it fills. When this is dropped, in whatever way, the
/// slot is free again and nobody renews the lease any more.
struct Slot {
    lease: Lease,
    keeper: Arc<LeaseKeeper>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.keeper.release(self.lease.fence());
    }
}

/// Claims jobs for the free slots of this process.
pub struct Claimer {
    /// What jobs may touch.
    pub context: Arc<JobContext>,
    /// Holds the leases.
    pub keeper: Arc<LeaseKeeper>,
    /// Says when to look.
    pub wake: Arc<Wake>,
    /// The id of this process.
    pub worker_id: Uuid,
    /// The queues it serves.
    pub queues: Vec<String>,
    /// Its slots.
    pub slots: Arc<Semaphore>,
    /// The numbers.
    pub timings: QueueConfig,
    /// Cancelled when no new job may be claimed.
    pub drain: CancellationToken,
    /// Set when a claim failed: its answer may have been lost, not the claim.
    pub unsure: AtomicBool,
}

type Claims = Vec<(Claimed, Arc<Slot>)>;

impl Claimer {
    /// Waits until jobs are claimed. Empty when the worker drains.
    async fn next(self: Arc<Self>) -> Claims {
        let mut failures: u32 = 0;
        loop {
            let Some(first) = self.free_slot().await else { return Vec::new() };
            self.give_back_unheld().await;
            let mut permits = vec![first];
            while let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() {
                permits.push(permit);
            }
            let sent = self.context.clock.now();
            let claimed = self
                .context
                .store
                .claim(self.worker_id, &self.queues, permits.len(), self.timings.lease)
                .await;
            match claimed {
                Ok(jobs) if !jobs.is_empty() => {
                    self.context.metrics.claimed(self.context.clock.now() - sent);
                    let leased = jobs.into_iter().zip(permits).map(|(job, permit)| {
                        let lease = self.keeper.hold(job.fence(), sent);
                        let keeper = Arc::clone(&self.keeper);
                        (job, Arc::new(Slot { lease, keeper, _permit: permit }))
                    });
                    return leased.collect();
                }
                Ok(_) => {
                    failures = 0;
                    drop(permits);
                    self.idle().await;
                }
                Err(error) => {
                    drop(permits);
                    failures += 1;
                    self.unsure.store(true, Ordering::Relaxed);
                    warn!("cannot claim jobs: {error}");
                    let ceiling = Duration::from_millis(250) * 2_u32.pow(failures.min(5));
                    let wait = self.context.clock.between(ceiling / 2, ceiling);
                    tokio::select! {
                        () = self.drain.cancelled() => {}
                        () = self.context.clock.sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// After a claim without an answer: gives back what it may have leased, which nobody would run
    /// until its lease ends.
    async fn give_back_unheld(&self) {
        if !self.unsure.load(Ordering::Relaxed) {
            return;
        }
        let held = self.keeper.held_jobs();
        match self.context.store.give_back_unheld(self.worker_id, &held).await {
            Ok(0) => self.unsure.store(false, Ordering::Relaxed),
            Ok(jobs) => {
                self.unsure.store(false, Ordering::Relaxed);
                warn!(jobs, "gave back jobs whose claim was not answered");
            }
            Err(error) => warn!("cannot look for jobs whose claim was not answered: {error}"),
        }
    }

    async fn free_slot(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            () = self.drain.cancelled() => None,
            permit = Arc::clone(&self.slots).acquire_owned() => permit.ok(),
        }
    }

    async fn idle(&self) {
        let next_due = self.context.store.next_due(&self.queues).await.ok().flatten();
        tokio::select! {
            () = self.drain.cancelled() => {}
            () = self.wake.wait(&self.context.clock, &self.timings, next_due) => {}
        }
    }

    /// Gives back what was claimed and never started.
    async fn give_back(&self, claims: impl IntoIterator<Item = (Claimed, Arc<Slot>)>) {
        for (_, slot) in claims {
            let unused = Settlement::Interrupted("the worker stopped before it began".to_owned());
            settle(&self.context, &slot.lease, &unused).await;
        }
    }
}

/// The source of tasks for an apalis worker.
struct LeaseBackend {
    claimer: Arc<Claimer>,
    claim: Option<JoinHandle<Claims>>,
    ready: VecDeque<(Claimed, Arc<Slot>)>,
    closing: Option<BoxFuture<'static, ()>>,
}

impl Backend for LeaseBackend {
    type Task = Task<Claimed>;
    type Error = Infallible;

    fn poll_ready(
        &mut self,
        _: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Option<Result<Self::Task, Self::Error>>> {
        loop {
            if let Some((job, slot)) = self.ready.pop_front() {
                let id = TaskId::String(job.job_id.to_string());
                return Poll::Ready(Some(Ok(TaskBuilder::new(job).task_id(id).data(slot).build())));
            }
            if worker.is_shutting_down() {
                return Poll::Pending;
            }
            let claimer = Arc::clone(&self.claimer);
            let claim = self.claim.get_or_insert_with(|| tokio::spawn(claimer.next()));
            let claims = ready!(claim.poll_unpin(cx));
            self.claim = None;
            match claims {
                Ok(claims) if claims.is_empty() => return Poll::Pending,
                Ok(claims) => self.ready.extend(claims),
                Err(error) => warn!("the claim task ended badly, starting it again: {error}"),
            }
        }
    }

    fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Self::Error>> {
        if self.closing.is_none() {
            let claimer = Arc::clone(&self.claimer);
            let claim = self.claim.take();
            let unstarted = std::mem::take(&mut self.ready);
            self.closing = Some(
                async move {
                    claimer.give_back(unstarted).await;
                    if let Some(claim) = claim {
                        claimer.give_back(claim.await.unwrap_or_default()).await;
                    }
                }
                .boxed(),
            );
        }
        if let Some(closing) = &mut self.closing {
            ready!(closing.poll_unpin(cx));
        }
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for LeaseBackend {
    type Args = Claimed;
    type Id = String;
    type Kind = Ephemeral;
    type Config = QueueConfig;
    type Layer = LeaseLayer;

    fn config(&self) -> &QueueConfig {
        &self.claimer.timings
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> LeaseLayer {
        LeaseLayer { claimer: Arc::clone(&self.claimer) }
    }
}

/// Settles what its inner service answers, under the lease of the task.
#[derive(Clone)]
struct LeaseLayer {
    claimer: Arc<Claimer>,
}

impl<S> tower::Layer<S> for LeaseLayer {
    type Service = LeaseService<S>;

    fn layer(&self, inner: S) -> LeaseService<S> {
        LeaseService { claimer: Arc::clone(&self.claimer), inner }
    }
}

#[derive(Clone)]
struct LeaseService<S> {
    claimer: Arc<Claimer>,
    inner: S,
}

impl<S> tower::Service<Task<Claimed>> for LeaseService<S>
where
    S: tower::Service<Task<Claimed>, Response = Settlement>,
    S::Future: Send + 'static,
    S::Error: Into<BoxDynError> + Send,
{
    type Response = ();
    type Error = BoxDynError;
    type Future = BoxFuture<'static, Result<(), BoxDynError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, task: Task<Claimed>) -> Self::Future {
        let slot = task.data().get::<Arc<Slot>>().cloned();
        let run = self.inner.call(task);
        let claimer = Arc::clone(&self.claimer);
        // Its own task: a run must not wait for its neighbours to be polled.
        let job = tokio::spawn(async move {
            let Some(slot) = slot else { return };
            let settlement = match AssertUnwindSafe(run).catch_unwind().await {
                Ok(Ok(settlement)) => settlement,
                Ok(Err(error)) => {
                    Settlement::Failed(ErrorClass::ToolError, error.into().to_string())
                }
                Err(_panic) => Settlement::Failed(
                    ErrorClass::ToolError,
                    "archon-awo itself failed while it ran this order: see the worker's log".into(),
                ),
            };
            settle(&claimer.context, &slot.lease, &settlement).await;
            claimer.context.metrics.job_finished(settlement.outcome(), settlement.class());
            if matches!(settlement, Settlement::Cancelled(_)) {
                claimer.context.metrics.cancelled();
            }
            drop(slot);
            claimer.wake.look_now();
        });
        async move { job.await.map_err(Into::into) }.boxed()
    }
}

/// Runs jobs until the claimer drains and the last of them has ended.
pub async fn run(claimer: Arc<Claimer>) -> Result<(), WorkerError> {
    let slots = claimer.slots.available_permits();
    let drain = claimer.drain.clone();
    let context = Arc::clone(&claimer.context);
    let name = claimer.worker_id.to_string();
    let backend = LeaseBackend { claimer, claim: None, ready: VecDeque::new(), closing: None };
    let handler = tower::service_fn(move |task: Task<Claimed>| {
        let context = Arc::clone(&context);
        async move {
            let slot = task.data().get::<Arc<Slot>>().cloned();
            let slot = slot.ok_or("a task without a lease: this backend never makes one")?;
            Ok::<_, BoxDynError>(kinds::run(&context, &task.args, &slot.lease).await)
        }
    });
    WorkerBuilder::new(name)
        .backend(backend)
        .concurrency(slots)
        .build(handler)
        .run_until(async move {
            drain.cancelled().await;
            Ok::<(), WorkerError>(())
        })
        .await
}
