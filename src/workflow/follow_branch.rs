//! Takes up what others pushed to the branch of an order, before anything of the order goes on.

use serde_json::json;
use tracing::info;

use super::{
    failure::{Failure, StepError},
    order_run::OrderRun,
};
use crate::{
    domain::{ErrorClass, StepName},
    git::{Known, Sandbox},
};

impl OrderRun<'_> {
    /// The sandbox on the head of its branch, as the remote has it, when anything of the order is still to be
    /// pushed there. A branch that was rewritten is a failure, and so is a conflict that no agent can solve.
    pub(super) async fn follow_branch(&self, sandbox: Sandbox) -> Result<Sandbox, StepError> {
        let steps = self.order.steps.as_slice();
        let is_ahead = |step: StepName| steps.contains(&step) && !self.results.contains_key(&step);
        if !is_ahead(StepName::Commit) {
            return Ok(sandbox);
        }
        let key = sandbox.branch.full_ref();
        let history = self.push_history(&key).await?;
        if history.ours.is_empty() && history.replaced.is_empty() {
            // Nothing of this order was ever meant to be there.
            return Ok(sandbox);
        }
        if !self.workflow.git.sandbox_is_free(&self.order.id).await? {
            let text = "the sandbox is still held by an agent of a worker that is gone";
            let failure = Failure::new(ErrorClass::LostWorker, text);
            return Err(Failure { waits: true, ..failure }.into());
        }
        let marks = is_ahead(StepName::Execute);
        let known = Known { arrived: history.arrived, replaced: history.replaced, marks };
        let remote = self.remote();
        let (sandbox, followed) = sandbox.follow(&remote, &known).await?;
        if let Some(followed) = followed {
            info!(work_order.id = %self.order.id, commits = followed.commits, head = followed.head,
                "others pushed to the branch, the order goes on from there");
            let level = if followed.conflicts.is_empty() { "info" } else { "warning" };
            let facts = json!({ "branch": sandbox.branch.as_str(), "from": followed.from,
                "head": followed.head, "commits": followed.commits, "files": followed.files,
                "conflicts": followed.conflicts });
            self.journal.event(level, "branch_followed", None, facts).await;
        }
        Ok(sandbox)
    }
}
