//! The only module that names apalis: it gives the worker loop, the concurrency limit and the
//! layers; claims and leases are ours.
//!
//! apalis asks for one task at a time; the claimer takes as many as there are free slots in one
//! statement, and they are handed over one by one.

use std::{
    collections::VecDeque,
    convert::Infallible,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::Arc,
    task::{Context, Poll},
};

use apalis::prelude::{WorkerBuilder, WorkerBuilderExt, WorkerContext};
use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    error::{BoxDynError, WorkerError},
    task::{Task, builder::TaskBuilder, task_id::TaskId},
};
use futures::{FutureExt, future::BoxFuture, ready};
use tokio::task::JoinHandle;

use super::claimer::{Claimer, Claims, Slot};
use crate::{
    config::QueueConfig,
    domain::ErrorClass,
    store::{Claimed, Settlement},
};

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
                // The lane ends with it, and the worker with the lane.
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => resume_unwind(panic),
                    // The runtime ends.
                    Err(_) => return Poll::Pending,
                },
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
        &self.claimer.engine.timings
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
            let engine = &claimer.engine;
            engine.settle(&slot.lease, &settlement).await;
            if settlement.class() == Some(ErrorClass::Disk)
                && let Some(gate) = &claimer.lane.gate
            {
                gate.distrust().await;
            }
            drop(slot);
            claimer.wake.look_now();
        });
        async move { job.await.map_err(Into::into) }.boxed()
    }
}

/// Runs the jobs of a lane until the worker drains and the last of them has ended.
pub fn run(claimer: Arc<Claimer>) -> BoxFuture<'static, Result<(), WorkerError>> {
    let slots = claimer.lane.slots;
    let drain = claimer.engine.drain.clone();
    let handle = Arc::clone(&claimer.lane.handler);
    // A name of its own for every lane of the process.
    let name = format!("{}-{}", claimer.engine.worker_id, claimer.lane.queues.join("-"));
    let backend = LeaseBackend { claimer, claim: None, ready: VecDeque::new(), closing: None };
    let handler = tower::service_fn(move |task: Task<Claimed>| {
        let handle = Arc::clone(&handle);
        async move {
            let slot = task.data().get::<Arc<Slot>>().cloned();
            let slot = slot.ok_or("a task without a lease: this backend never makes one")?;
            Ok::<_, BoxDynError>(handle(task.args, slot.lease.clone()).await)
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
        .boxed()
}
