//! One attempt at a claimed order, from its lease to the outcome that settles it.

use tracing::{Instrument, info_span, warn};

use super::{
    Workflow,
    dossier::Dossier,
    failure::{Failure, StepError},
    interrupts::Interrupts,
    journal::Journal,
    order::Order,
    order_run::OrderRun,
    set_aside::set_aside,
};
use crate::{
    backoff,
    disk::{Closed, look_at_volume},
    domain::{ErrorClass, WorkOrderId},
    lease::{Lease, StopReason},
    put_back,
    store::{Claimed, RunStore, Settlement, Wait},
};

/// Runs a claimed order to an outcome.
pub async fn run(workflow: &Workflow, job: &Claimed, lease: &Lease) -> Settlement {
    let span = info_span!(
        "job.run",
        otel.kind = "consumer",
        job.id = job.job_id,
        job.kind = job.kind,
        job.attempt = job.attempt,
        job.epoch = job.epoch,
        job.queue = job.queue,
        work_order.id = job.work_order_id,
        outcome = tracing::field::Empty,
        error.class = tracing::field::Empty,
    );
    if let Some(traceparent) = &job.traceparent {
        crate::telemetry::link_or_parent(&span, traceparent);
    }
    async {
        let settlement = attempt(workflow, job, lease).await;
        let span = tracing::Span::current();
        span.record("outcome", tracing::field::debug(&settlement));
        if let Some(class) = settlement.class() {
            span.record("error.class", class.as_str());
        }
        settlement
    }
    .instrument(span.clone())
    .await
}

/// Folders in folders of ours that are opened again: those of a repository have few levels.
const DEEPEST: usize = 16;

/// How an attempt ended, and whether a step succeeded in it.
struct Ended {
    result: Result<Option<ErrorClass>, StepError>,
    progressed: bool,
}

impl From<StepError> for Ended {
    fn from(error: StepError) -> Self {
        Self { result: Err(error), progressed: false }
    }
}

async fn settlement(
    workflow: &Workflow,
    job: &Claimed,
    lease: &Lease,
    store: &RunStore,
    ended: Ended,
) -> Settlement {
    match ended.result {
        Ok(class) => Settlement::Succeeded(class),
        Err(StepError::Stopped(StopReason::Cancelled)) => {
            Settlement::Cancelled(lease.cancel_reason())
        }
        Err(StepError::Stopped(StopReason::Draining)) => {
            Settlement::Interrupted("the worker was stopped".to_owned())
        }
        Err(StepError::Stopped(StopReason::LeaseLost)) => {
            // The settlement is refused by its fence; it is made so that the refusal is counted.
            Settlement::Interrupted("the lease was lost".to_owned())
        }
        Err(StepError::Failed(failure)) if failure.waits => {
            wait_for_sandbox(workflow, job, store, &failure).await
        }
        Err(StepError::Failed(failure)) if failure.retryable => {
            retry(workflow, job, &failure, ended.progressed)
        }
        Err(StepError::Failed(failure)) => {
            Settlement::Failed(failure.class, workflow.clean(&failure.message))
        }
    }
}

/// Another attempt at what may mend itself: counted when the order failed, for a time when something outside of it
/// did.
fn retry(workflow: &Workflow, job: &Claimed, failure: &Failure, progressed: bool) -> Settlement {
    let before = match failure.outside {
        true if progressed => 0,
        true => job.waits,
        false => job.attempt.saturating_sub(1),
    };
    let number = u32::try_from(before).unwrap_or_default().saturating_add(1);
    let settings = &workflow.settings;
    let delay = settings.backoff.delay(&workflow.clock, number, failure.retry_after);
    let message = workflow.clean(&failure.message);
    if failure.outside {
        let asked = failure.retry_after.map(backoff::asked).unwrap_or_default();
        let wait = Wait { delay, patience: settings.retry_for, asked };
        Settlement::WaitedOut(failure.class, message, wait)
    } else {
        Settlement::Retried(failure.class, message, delay)
    }
}

/// A worker that is cut off from the database keeps its agents frozen, and with them the sandbox on a
/// volume it shares, until it hears that its lease is gone. What holds the lock for longer than that is
/// nothing that ends by itself.
async fn wait_for_sandbox(
    workflow: &Workflow,
    job: &Claimed,
    store: &RunStore,
    failure: &Failure,
) -> Settlement {
    let message = workflow.clean(&failure.message);
    if !put_back::is_spent(job) {
        return put_back::put_back(&workflow.clock, job, message);
    }
    let host =
        hostname::get().map_or_else(|_| "?".into(), |name| name.to_string_lossy().into_owned());
    let owner = match store.former_owner().await {
        Ok(Some((host, pid))) => {
            format!("its worker before this one was on host {host} (pid {pid})")
        }
        Ok(None) => "no worker of it is known to have been lost".to_owned(),
        Err(error) => format!("its worker before this one is not known ({error})"),
    };
    let sentence = format!(
        "{message}, as seen from host {host}; {}; {owner}: end what holds the lock (`fuser -v` names \
         it on its host), then requeue the order",
        put_back::history(job)
    );
    Settlement::Failed(failure.class, sentence)
}

async fn attempt(workflow: &Workflow, job: &Claimed, lease: &Lease) -> Settlement {
    let store = RunStore::new(
        workflow.store.clone(),
        lease.fence(),
        lease.lost_token(),
        workflow.clock.clone(),
    );
    let interrupts = Interrupts::of(lease, &workflow.clock);
    let order = match interrupts.unless_stopped(load(workflow, job, &store)).await {
        Ok(order) => order,
        Err(error) => return settlement(workflow, job, lease, &store, error.into()).await,
    };
    let secrets = workflow.allowed_secrets(&order.agent_environment);
    let keeping;
    let workflow = if secrets.is_empty() {
        workflow
    } else {
        keeping = workflow.keeping(secrets);
        &keeping
    };
    let id = order.id.clone();
    let mut ended = work(workflow, job, lease, store.clone(), order).await;
    if let Err(StepError::Failed(failure)) = &mut ended.result
        && failure.denied
        && open_again(workflow, &id).await
    {
        // No fault of this order: somebody closed what is ours, or it is still closed.
        (failure.retryable, failure.outside) = (true, true);
    }
    settlement(workflow, job, lease, &store, ended).await
}

/// Looks for what is closed of that which an order needs and only we write, and opens it again; answers
/// whether there was something.
async fn open_again(workflow: &Workflow, order: &WorkOrderId) -> bool {
    let (volume, files) =
        (workflow.git.volume().root().to_owned(), workflow.settings.work_orders.clone());
    let order = order.to_string();
    let look = move || {
        let mut all =
            [look_at_volume(&volume), look_at_volume(&files), Closed::default(), Closed::default()];
        all[2].look(&volume.join(".cache"), DEEPEST, true);
        all[3].look(&files.join(order), DEEPEST, true);
        for closed in &all {
            if let Some(still) = &closed.still {
                warn!("{still}");
            }
        }
        all.iter().any(Closed::any)
    };
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

async fn load(workflow: &Workflow, job: &Claimed, store: &RunStore) -> Result<Order, StepError> {
    let Some(record) = store.load_order().await? else {
        let text = format!("job {} has no work order: it was deleted", job.job_id);
        return Err(Failure::lasting(ErrorClass::Invalid, text).into());
    };
    let prompts = store.prompts().await?;
    Order::check(workflow, record, prompts)
}

async fn work(
    workflow: &Workflow,
    job: &Claimed,
    lease: &Lease,
    store: RunStore,
    order: Order,
) -> Ended {
    let interrupts = Interrupts::of(lease, &workflow.clock);
    let opened = async {
        let sandbox = workflow.git.volume().sandbox(&order.id);
        workflow.supervisor.take_back(&sandbox).await;
        let former = set_aside(workflow, &order).await?;
        let dossier = Dossier::open(&workflow.settings.work_orders, &order.id).await?;
        Ok((former, dossier, store.finished_steps().await?))
    };
    let (former, dossier, results) = match interrupts.unless_stopped(opened).await {
        Ok(opened) => opened,
        Err(error) => return error.into(),
    };
    let (journal, writer) =
        Journal::open(store.clone(), order.id.clone(), workflow.redactor.clone());
    if let Some(facts) = former {
        journal.event("warning", "former_order_set_aside", None, facts).await;
    }
    let mut run = OrderRun::new(workflow, lease, store, order, journal, dossier, results);
    let result = run.run_steps(job).await;
    let ended = Ended { result, progressed: run.progressed };
    let order = run.order.id.clone();
    let log_interrupts = run.log_interrupts.clone();
    let proof = run.into_proof();
    if log_interrupts.briefly(writer.finish()).await.is_none() {
        warn!(work_order.id = %order, "the end of the log was given up: the database did not take it");
    }
    interrupts.briefly(proof.end(&workflow.git, &order, &workflow.clock)).await;
    ended
}
