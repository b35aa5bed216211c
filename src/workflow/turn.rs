//! One turn of the agent: a prompt goes in, an answer comes out, both are kept.

use std::path::Path;

use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::{
    agent_environment::{credential_environment, proxy_address, proxy_environment},
    failure::{Failure, StepError},
    interrupts::Interrupts,
    journal::Journal,
    order_run::OrderRun,
};
use crate::{
    agent::{
        AgentReport, AgentRequest, Delivered, DeniedCall, Isolation, IsolationLevel, OutputChunk,
        deliver_rest,
    },
    domain::{EarlierRun, ErrorClass, Role, StepName, Task},
    git::{Sandbox, Undone},
};

/// Chunks of output that may wait for the journal; what is beyond them waits in the spool.
const OUTPUT_BACKLOG: usize = 32;

/// Stands before a prompt that is asked again because the answer did not arrive.
const ASK_AGAIN: &str = "Your last answer did not arrive. If all that is asked for below is done, give the \
                         whole answer again; else finish it first.";

/// What the agent is asked.
pub struct Turn {
    /// For which step.
    pub step: StepName,
    /// For what within the step.
    pub task: Task,
    /// Which run of that step, from 1.
    pub attempt: i32,
    /// Tells apart several turns within one run of a step.
    pub label: String,
    /// The conversation it belongs to.
    pub session: Uuid,
    /// The words.
    pub prompt: String,
}

/// What came of it.
pub struct Answer {
    /// What the agent said.
    pub text: String,
    /// The conversation, as the agent names it.
    pub session: Option<Uuid>,
    /// What it changed although it was to look.
    pub undone: Undone,
}

impl Turn {
    /// As whom the agent is asked: whoever only looks at the files has what it changed put back.
    pub const fn role(&self) -> Role {
        Role::of(self.task)
    }

    fn file_name(&self, number: usize, again: bool) -> String {
        let Self { step, attempt, label, .. } = self;
        let separator = if label.is_empty() { "" } else { "-" };
        let again = if again { "-repeated" } else { "" };
        format!("{number}-{step}-{attempt}{separator}{label}{again}")
    }
}

impl OrderRun<'_> {
    /// Hands over what the database did not take while the agent ran and shortly after: it was away.
    /// The next write waits for it anyway, for as long as the lease may be ours.
    async fn catch_up(&self, spool: &Path, mut sent: Delivered, to: mpsc::Sender<OutputChunk>) {
        while sent.is_behind() && !self.lease.is_lost() {
            let before = sent;
            sent = deliver_rest(spool, sent, &to).await;
            if sent == before && to.capacity() > 0 {
                tracing::warn!(spool = %spool.display(), "a part of the output is gone");
                return;
            }
        }
    }

    /// Asks the agent and answers what it said; the verdict has been checked. An agent that ends well without
    /// its last words is asked once more.
    pub async fn take_turn(
        &mut self,
        sandbox: &Sandbox,
        mut turn: Turn,
    ) -> Result<Answer, StepError> {
        let (mut report, mut undone) = self.run_turn(sandbox, &turn, false).await?;
        if report.answer_is_lost {
            self.journal.event("warning", "answer_lost", Some(turn.step), json!({})).await;
            turn.prompt = format!("{ASK_AGAIN}\n\n{}", turn.prompt);
            (report, undone) = self.run_turn(sandbox, &turn, true).await?;
        }
        match report.verdict {
            Ok(()) => Ok(Answer { text: report.text, session: report.session, undone }),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Runs the agent once; of a run without its last words the report is answered, too.
    async fn run_turn(
        &mut self,
        sandbox: &Sandbox,
        turn: &Turn,
        again: bool,
    ) -> Result<(AgentReport, Undone), StepError> {
        self.check_stop()?;
        let settings = &self.workflow.settings;
        let name = turn.file_name(self.number_of(turn.step), again);
        let prompt = self.workflow.redactor.text(&turn.prompt);
        let file = format!("{name}.md");
        let artifact = self.dossier.keep("prompts", &file, "prompt", turn.step, &prompt).await?;
        self.store.add_artifact(&self.order.id, &artifact).await?;

        let mut extra_env = vec![("PATH".to_owned(), settings.search_path.clone())];
        extra_env.extend(self.allowed_environment()?);
        extra_env.extend(credential_environment(&settings.agent_credentials));
        let proxy = proxy_address(settings.proxy.as_deref(), settings.proxy_by_number).await;
        let proxy = proxy.map_err(|words| Failure::new(ErrorClass::Overloaded, words))?;
        extra_env.extend(proxy_environment(proxy.as_deref()));
        extra_env.extend(self.port_environment(sandbox).await?);
        let run_id = Uuid::new_v4();
        let (home, tmp) = sandbox.rooms(turn.role());
        let unguided = self.remember(sandbox, turn).await?;
        let request = AgentRequest {
            order: self.order.id.clone(),
            step: turn.step,
            task: turn.task,
            attempt: u32::try_from(turn.attempt).unwrap_or(u32::MAX),
            run_id,
            checkout: sandbox.checkout.clone(),
            sandbox_root: sandbox.root.clone(),
            home,
            tmp,
            renew: !turn.role().writes(),
            objects: sandbox.borrowed_objects().await?,
            trusted: self.order.trusted,
            unguided,
            prompt: turn.prompt.clone(),
            session: turn.session,
            resume: true,
            hard_timeout: settings.timeout,
            idle_timeout: settings.idle_timeout,
            spool: self.dossier.spool(&name),
            extra_env,
        };
        let earlier = self.begin_run(turn, &request).await?;
        // From here on nothing is dropped: the supervisor ends the agent, and what it left is kept.
        let guard = self.interrupts.guard();
        let (report, over_quota) = self.run_agent(sandbox, turn, request, &earlier).await;
        let file = format!("{name}.md");
        let keep = self.keep_output(&file, "output", turn.step, &report.text);
        // Of a run that is to stop as well, when the database takes it.
        match self.interrupts.briefly(keep).await {
            Some(kept) => kept?,
            None => self.check_stop()?,
        }
        // It may wait for the sandbox's lock; of a run that stops meanwhile the next attempt does it.
        drop(guard);
        let undone = self.undo(sandbox, turn, &report).await?;
        match &report.verdict {
            Ok(()) => Ok((report, undone)),
            Err(_) if report.answer_is_lost => Ok((report, undone)),
            Err(failure) => {
                // A run that was ended from outside says so in our own words.
                if matches!(failure.class, ErrorClass::Cancelled | ErrorClass::LostWorker) {
                    self.check_stop()?;
                    if let Some(over_quota) = over_quota {
                        return Err(over_quota.into());
                    }
                }
                Err(failure.clone().into())
            }
        }
    }

    /// Runs the agent to its end and hands its output over; the report, and whether it was stopped for
    /// what it took on disk.
    async fn run_agent(
        &mut self,
        sandbox: &Sandbox,
        turn: &Turn,
        request: AgentRequest,
        earlier: &[EarlierRun],
    ) -> (AgentReport, Option<Failure>) {
        let settings = &self.workflow.settings;
        let (spool, run_id, step) = (request.spool.clone(), request.run_id, turn.step);
        let (sender, chunks) = mpsc::channel(OUTPUT_BACKLOG);
        let rest = sender.clone();
        let forward = AbortOnDropHandle::new(tokio::spawn(forward(
            chunks,
            (step, run_id),
            self.journal.clone(),
            self.log_interrupts.clone(),
        )));
        let heard = watch::Sender::default();
        let (mut hearing, lease) = (heard.subscribe(), self.lease.clone());
        let _listener = AbortOnDropHandle::new(tokio::spawn(async move {
            while hearing.changed().await.is_ok() {
                lease.note_output();
            }
        }));
        let interrupt = self.lease.interrupt_token();
        let quota = settings.quota.as_ref().map(|quota| {
            quota.watch(sandbox.root.clone(), self.workflow.clock.clone(), interrupt.clone())
        });
        let reached = watch::Sender::default();
        let note = AbortOnDropHandle::new(tokio::spawn(note_isolation(
            reached.subscribe(),
            self.journal.clone(),
            step,
            self.isolation.is_none(),
        )));
        let supervisor = self.workflow.supervisor.clone().telling(reached).heard_by(heard);
        let report = supervisor
            .run(&settings.agent, request, self.lease.signal(), interrupt.clone(), sender)
            .await;
        interrupt.cancel();
        self.count_run(run_id, turn.session, &report, earlier).await;
        if let Some(isolation) = &report.isolation {
            self.isolation = Some(isolation.to_string());
        }
        if turn.label.is_empty() {
            self.note_session(report.session);
        }
        if let Some(took) = report.tree_empty_after {
            tracing::info!(
                work_order.id = %self.order.id, step = %step, run.id = %run_id,
                duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "no process of the agent is left"
            );
        }
        let interrupts = self.interrupts.clone();
        interrupts.briefly(self.proof.agent_ended(report.tree_empty_after.is_some())).await;
        let over_quota = match quota {
            Some(quota) => quota.end().await,
            None => None,
        };
        // Its sender is dropped: the note is made, or there is nothing to note.
        drop(supervisor);
        let handed_over = async {
            let _ = note.await;
            self.tell_denied(step, &report.denied).await;
            self.catch_up(&spool, report.delivered, rest).await;
            // Every sender is dropped: the forwarder ends when everything is handed over.
            let _ = forward.await;
        };
        if self.log_interrupts.briefly(handed_over).await.is_none() {
            tracing::warn!(spool = %spool.display(), "the end of the output is only in its file");
        }
        (report, over_quota)
    }

    /// Logs what the agent was not allowed to do. Whether that matters is seen by what the step delivers.
    async fn tell_denied(&self, step: StepName, calls: &[DeniedCall]) {
        for DeniedCall { tool, input } in calls {
            let facts = json!({ "tool": tool, "input": input });
            self.journal.event("warning", "tool_refused", Some(step), facts).await;
        }
    }
}

/// Hands the output of an agent to the journal. A run that is to stop does not wait long for a journal
/// that stands still; what it does not take stays in the spool.
async fn forward(
    mut chunks: mpsc::Receiver<OutputChunk>,
    (step, run_id): (StepName, Uuid),
    journal: Journal,
    interrupts: Interrupts,
) {
    while let Some(chunk) = chunks.recv().await {
        if interrupts.briefly(journal.output(step, run_id, chunk)).await.is_none() {
            return;
        }
    }
}

/// Logs how far the agent of a step is shut in, once it runs.
async fn note_isolation(
    mut reached: watch::Receiver<Option<Isolation>>,
    journal: Journal,
    step: StepName,
    first: bool,
) {
    let Ok(Some(isolation)) = reached.wait_for(Option::is_some).await.map(|found| found.clone())
    else {
        return;
    };
    if first {
        let level = if isolation.level == IsolationLevel::None { "warning" } else { "info" };
        let facts = json!({ "isolation": isolation.level, "detail": isolation.to_string() });
        journal.event(level, "agent_isolation", Some(step), facts).await;
    }
}
