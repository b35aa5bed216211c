//! What planning and the reviewer change in the checkout is put back, and the log of the order says so.

use serde_json::json;
use tracing::info;

use super::{
    failure::{Failure, StepError},
    order_run::OrderRun,
    turn::Turn,
};
use crate::{
    agent::AgentReport,
    domain::{ErrorClass, StepName},
    git::{Sandbox, Undone},
};

/// Files that an event of the log names: it has 4 KiB.
const LISTED: usize = 20;

impl OrderRun<'_> {
    /// Remembers the files before an agent begins that is only to look; answers whether its author wrote into what
    /// they tell agents, which then does not count for it.
    pub(super) async fn remember(&self, sandbox: &Sandbox, turn: &Turn) -> Result<bool, StepError> {
        if turn.role().writes() {
            return Ok(false);
        }
        sandbox.remember_files().await?;
        let changed = sandbox.changed_guidance().await?;
        if !changed.is_empty() {
            let files: Vec<_> = changed.iter().take(LISTED).collect();
            let facts = json!({ "count": changed.len(), "files": files });
            self.journal.event("warning", "guidance_left_out", Some(turn.step), facts).await;
        }
        Ok(!changed.is_empty())
    }

    /// Puts back what the agent of a turn changed that was only to look. Of a run that is to stop it stays:
    /// whoever goes on does it first.
    pub(super) async fn undo(
        &self,
        sandbox: &Sandbox,
        turn: &Turn,
        report: &AgentReport,
    ) -> Result<Undone, StepError> {
        let is_over = match &report.verdict {
            Ok(()) => true,
            Err(failure) => {
                let stopped =
                    matches!(failure.class, ErrorClass::Cancelled | ErrorClass::LostWorker);
                failure.sandbox_free && !stopped
            }
        };
        if turn.role().writes() || !is_over || self.lease.is_lost() {
            return Ok(Undone::default());
        }
        let undone = sandbox.put_files_back().await?;
        self.tell_put_back(Some(turn.step), &undone).await;
        Ok(undone)
    }

    /// Puts back what an agent left that was ended while it looked, before anything else happens to the files.
    pub(super) async fn undo_unfinished(&self, sandbox: &Sandbox) -> Result<(), StepError> {
        if !sandbox.remembers_files().await? {
            return Ok(());
        }
        if !self.workflow.git.sandbox_is_free(&self.order.id).await? {
            let text = "the sandbox is still held by an agent of a worker that is gone";
            let failure = Failure::new(ErrorClass::LostWorker, text);
            return Err(Failure { waits: true, ..failure }.into());
        }
        let undone = sandbox.put_files_back().await?;
        self.tell_put_back(None, &undone).await;
        Ok(())
    }

    async fn tell_put_back(&self, step: Option<StepName>, undone: &Undone) {
        if undone.is_empty() {
            return;
        }
        info!(work_order.id = %self.order.id, files = undone.count(), "files are put back");
        let files = undone.listed().into_iter();
        let files: Vec<_> =
            files.map(|(path, what)| json!({ "path": path, "what": what })).collect();
        // A plan is often written as a file, and nothing is wrong with that.
        let is_plan =
            step == Some(StepName::Planning) && undone.written(false).len() == undone.count();
        let level = if is_plan { "info" } else { "warning" };
        let facts = json!({ "count": undone.count(), "left": undone.left, "files": files });
        self.journal.event(level, "files_put_back", step, facts).await;
    }
}
