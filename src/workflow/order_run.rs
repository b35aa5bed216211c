//! One run of one order under one lease: which steps are left, in order, until an outcome.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value, json};
use tracing::{Instrument, info, info_span, warn};
use uuid::Uuid;

use super::{
    Workflow,
    delivered::Delivered,
    dossier::Dossier,
    failure::{Failure, StepError},
    interrupts::Interrupts,
    journal::Journal,
    order::Order,
    proof::Proof,
    steps,
};
use crate::{
    domain::{ErrorClass, StepName},
    forge::Forge,
    git::{Remote, Sandbox},
    lease::{Lease, StopReason},
    ports::PortRange,
    store::{Claimed, OrderFacts, RunStore, StepEnd},
};

/// What a step leaves behind.
pub struct StepResult {
    /// Who did it.
    pub agent_name: &'static str,
    /// For later steps and resumed runs.
    pub output: Value,
    /// For people.
    pub text: String,
    /// `no_changes` when there was nothing to do.
    pub class: Option<ErrorClass>,
}

/// The state of a run.
pub struct OrderRun<'a> {
    /// The tools.
    pub workflow: &'a Workflow,
    /// The right to work.
    pub lease: &'a Lease,
    /// Writes under that right.
    pub store: RunStore,
    /// What was ordered.
    pub order: Order,
    /// The log.
    pub journal: Journal,
    /// The files.
    pub dossier: Dossier,
    /// Results of the finished steps.
    pub results: HashMap<StepName, Value>,
    /// What is seen of the end.
    pub proof: Proof,
    /// Ends what the run waits for ...
    pub(super) interrupts: Interrupts,
    /// ... and, with time of its own, what it has to say for the log.
    pub(super) log_interrupts: Interrupts,
    /// Its ports, from the first agent on.
    pub(super) ports: Option<PortRange>,
    sandbox: Option<Sandbox>,
    session: Option<Uuid>,
    /// What there is to read of a step although it fails.
    said: Option<String>,
    /// How far the agent of the step was shut in.
    pub(super) isolation: Option<String>,
    /// Whether a step succeeded in this run.
    pub progressed: bool,
    /// The merged pull request after which the work on the branch begins.
    pub(super) after: Option<Delivered>,
}

impl<'a> OrderRun<'a> {
    /// A run that begins behind the steps in `results`.
    pub fn new(
        workflow: &'a Workflow,
        lease: &'a Lease,
        store: RunStore,
        order: Order,
        journal: Journal,
        dossier: Dossier,
        results: HashMap<StepName, Value>,
    ) -> Self {
        let proof = Proof::begin(store.clone(), lease);
        let interrupts = Interrupts::of(lease, &workflow.clock);
        let log_interrupts = interrupts.apart();
        Self {
            workflow,
            lease,
            store,
            order,
            journal,
            dossier,
            results,
            proof,
            interrupts,
            log_interrupts,
            ports: None,
            sandbox: None,
            session: None,
            said: None,
            isolation: None,
            progressed: false,
            after: None,
        }
    }
}

impl OrderRun<'_> {
    /// Lets go of everything but the proof of the end.
    pub fn into_proof(self) -> Proof {
        self.proof
    }

    /// Runs what is left; answers the class of an order that completed without a delivery.
    pub async fn run_steps(&mut self, job: &Claimed) -> Result<Option<ErrorClass>, StepError> {
        let begun = if self.results.is_empty() { "workflow_started" } else { "workflow_resumed" };
        let facts = json!({ "attempt": job.attempt, "crash_count": job.crash_count });
        self.log("info", begun, None, facts).await;
        // How it ended is told by the transaction that settles it: only the database knows whether a
        // failure is the end.
        self.remaining_steps().await
    }

    /// Logs something of the run itself, for which a run that is to stop does not wait long.
    async fn log(&self, level: &str, event: &str, step: Option<StepName>, facts: Value) {
        self.log_interrupts.briefly(self.journal.event(level, event, step, facts)).await;
    }

    async fn remaining_steps(&mut self) -> Result<Option<ErrorClass>, StepError> {
        let interrupts = self.interrupts.clone();
        interrupts.unless_stopped(Box::pin(self.count_lost_runs())).await?;
        interrupts.unless_stopped(Box::pin(self.check_forge())).await?;
        interrupts.unless_stopped(Box::pin(self.recover_sandbox())).await?;
        let chosen = self.order.steps.clone();
        let mut class = None;
        for step in chosen.as_slice() {
            if self.results.contains_key(step) {
                continue;
            }
            self.check_stop()?;
            let span = info_span!("step.run", step = %step, work_order.id = %self.order.id);
            class = self.run_step(*step).instrument(span).await?.or(class);
        }
        Ok(class)
    }

    /// Runs one step and commits its result.
    async fn run_step(&mut self, step: StepName) -> Result<Option<ErrorClass>, StepError> {
        let number = self.number_of(step);
        let session = self.session_of(step);
        let agent_name = steps::agent_name(self.workflow, step);
        self.lease.enter_step(step);
        self.session = None;
        self.said = None;
        self.isolation = None;
        let interrupts = self.interrupts.clone();
        let start = self.store.start_step(&self.order.id, step, row(number), agent_name, session);
        let started = interrupts.unless_stopped(async { Ok(start.await?) }).await?;
        let total = self.order.steps.as_slice().len();
        let facts = json!({ "step_number": number, "total_steps": total, "attempt": started.runs,
            "progress": format!("{number}/{total}"), "progress_pct": (number - 1) * 100 / total });
        self.log("info", "step_started", Some(step), facts).await;
        info!(attempt = started.runs, "step started");

        let begun = self.workflow.clock.now();
        let ended = interrupts.unless_stopped(Box::pin(steps::run(self, step, &started))).await;
        let (outcome, end) = match &ended {
            Ok(result) => ("succeeded", self.success(result)),
            Err(StepError::Failed(failure)) => ("failed", self.failed(agent_name, failure)),
            Err(StepError::Stopped(StopReason::Cancelled)) => {
                // What counts first: nothing of the order runs any more.
                interrupts.briefly(self.proof.stopped()).await;
                let reason = Failure::lasting(ErrorClass::Cancelled, self.lease.cancel_reason());
                ("cancelled", self.failed(agent_name, &reason))
            }
            // Left open: whoever goes on records how this run of the step ended.
            Err(StepError::Stopped(reason)) => {
                let took = self.workflow.clock.now() - begun;
                self.workflow.metrics.step_finished(step, "interrupted", took);
                return Err(StepError::Stopped(*reason));
            }
        };
        let stored = self.store.end_step(&self.order.id, step, row(number), &end);
        // Whoever goes on finds it open, and does it again.
        let late = || StepError::Stopped(self.lease.stop_reason().unwrap_or(StopReason::Draining));
        let seconds = interrupts.briefly(stored).await.ok_or_else(late)??;
        let took = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        self.workflow.metrics.step_finished(step, outcome, took);
        let result = match ended {
            Ok(result) => result,
            Err(error) => {
                let facts = json!({ "step_number": number, "total_steps": total,
                    "elapsed_seconds": seconds, "error": end.error_message,
                    "error_class": end.error_class.map(ErrorClass::as_str) });
                // A warning: whether the order has failed with it is not known before it is settled.
                self.log("warning", "step_failed", Some(step), facts).await;
                warn!(class = ?end.error_class, message = end.error_message, "step failed");
                return Err(error);
            }
        };
        let facts = json!({ "step_number": number, "total_steps": total, "elapsed_seconds": seconds,
            "progress": format!("{number}/{total}"), "progress_pct": number * 100 / total });
        self.log("info", "step_completed", Some(step), facts).await;
        info!(duration_ms = seconds * 1000.0, "step completed");
        self.results.insert(step, result.output);
        self.progressed = true;
        interrupts.briefly(self.describe()).await;
        Ok(result.class)
    }

    fn success(&self, result: &StepResult) -> StepEnd {
        StepEnd {
            agent_name: result.agent_name,
            success: true,
            output: self.workflow.redactor.value(result.output.clone()),
            text: Some(self.clean(&result.text)),
            error_class: result.class,
            error_message: None,
            session: self.session,
            isolation: self.isolation.clone(),
        }
    }

    fn failed(&self, agent_name: &'static str, failure: &Failure) -> StepEnd {
        StepEnd {
            agent_name,
            success: false,
            output: Value::Null,
            text: self.said.as_deref().map(|said| self.clean(said)),
            error_class: Some(failure.class),
            error_message: Some(self.clean(&failure.message)),
            session: self.session,
            isolation: self.isolation.clone(),
        }
    }

    /// A text as it may be stored: no secrets, no NUL, not endless.
    pub fn clean(&self, text: &str) -> String {
        self.workflow.clean(text)
    }

    /// An error when the run must not go on.
    pub fn check_stop(&self) -> Result<(), StepError> {
        self.lease.stop_reason().map_or(Ok(()), |reason| Err(StepError::Stopped(reason)))
    }

    /// An error unless the lease is fresh: asked right before anything leaves the database.
    pub async fn check_fresh(&self) -> Result<(), StepError> {
        while !self.lease.is_fresh() {
            self.check_stop()?;
            // Suspended: wait for the keeper to learn whether the lease is still ours.
            self.workflow.clock.sleep(Duration::from_millis(200)).await;
        }
        self.check_stop_unless_draining()
    }

    fn check_stop_unless_draining(&self) -> Result<(), StepError> {
        match self.lease.stop_reason() {
            None | Some(StopReason::Draining) => Ok(()),
            Some(reason) => Err(StepError::Stopped(reason)),
        }
    }

    /// Place of a step among the chosen ones, from 1.
    pub fn number_of(&self, step: StepName) -> usize {
        let place = self.order.steps.as_slice().iter().position(|chosen| *chosen == step);
        place.map_or(0, |place| place + 1)
    }

    /// The conversation of a step, as we choose it.
    pub fn session_of(&self, step: StepName) -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{}/{step}", self.order.id).as_bytes())
    }

    /// The remote with its credential.
    pub fn remote(&self) -> Remote {
        let credential = self.workflow.settings.credentials.for_url(&self.order.url);
        Remote { url: self.order.url.clone(), credential }
    }

    /// The forge of the remote.
    pub fn forge(&self) -> Result<Forge, StepError> {
        let token = self.workflow.settings.github_token.clone();
        let redactor = self.workflow.redactor.clone();
        Ok(Forge::for_remote(&self.order.url, token, &self.workflow.forge, redactor)?)
    }

    /// The sandbox, which `create-branch` has made.
    pub fn sandbox(&self) -> Result<Sandbox, StepError> {
        self.sandbox.clone().ok_or_else(|| {
            let text = "the sandbox is gone: requeue the order from create-branch";
            Failure::lasting(ErrorClass::Invalid, text).into()
        })
    }

    /// Takes over the sandbox that was made.
    pub fn enter_sandbox(&mut self, sandbox: Sandbox) {
        self.sandbox = Some(sandbox);
    }

    /// Notes the conversation that the agent says it had: not always the one we asked for.
    pub(super) fn note_session(&mut self, session: Option<Uuid>) {
        self.session = session.or(self.session);
    }

    /// Notes what there is to read of the step should it fail.
    pub(super) fn note_said(&mut self, text: &str) {
        self.said = Some(text.to_owned());
    }

    /// Writes `metadata.json`: for people, so an order does not fail for want of it.
    async fn describe(&self) {
        let finished: Vec<&str> = self
            .order
            .steps
            .as_slice()
            .iter()
            .filter(|step| self.results.contains_key(step))
            .map(|step| step.as_str())
            .collect();
        let chosen: Vec<&str> =
            self.order.steps.as_slice().iter().map(|step| step.as_str()).collect();
        let facts = json!({
            "agent_work_order_id": self.order.id,
            "repository_url": self.order.url.clone_url(),
            "user_request": self.clean(&self.order.request),
            "git_branch_name": self.sandbox.as_ref().map(|sandbox| sandbox.branch.as_str()),
            "selected_commands": chosen,
            "finished_steps": finished,
            "job_id": self.store.fence().job_id,
            "epoch": self.store.fence().epoch,
        });
        if let Err(StepError::Failed(failure)) = self.dossier.describe(&facts).await {
            self.note_unwritten(None, &failure).await;
        }
    }

    /// Stores facts of the order.
    pub async fn learn(&self, facts: OrderFacts) -> Result<(), StepError> {
        Ok(self.store.update_order(&self.order.id, &facts).await?)
    }
}

fn row(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
