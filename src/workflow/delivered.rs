//! What is known of the forge before an agent is paid for: whether the repository takes the work, and
//! what became of the pull request of an order that goes on.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::info;

use super::{
    failure::{Failure, StepError},
    order_run::OrderRun,
};
use crate::{
    domain::{ErrorClass, StepName, WorkOrderId},
    forge::{Forge, FoundPullRequest, PullRequestState},
    store::{Effect, PushHistory},
};

/// The steps that are done again when an order begins after its merged pull request; its plan stays.
const BEGUN_ANEW: [StepName; 5] = [
    StepName::CreateBranch,
    StepName::Execute,
    StepName::PrpReview,
    StepName::Commit,
    StepName::CreatePr,
];

/// A merged pull request after which the order went on from the base, on the same branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// Number in its repository.
    pub number: u64,
    /// The commit it ended with.
    pub head: String,
}

impl OrderRun<'_> {
    /// What an order that goes on must know before its next agent runs.
    pub(super) async fn check_forge(&mut self) -> Result<(), StepError> {
        if let Some(found) = self.closed_pull_request().await? {
            self.go_on_after(&found).await?;
        }
        // Otherwise create-branch asks, when it has learned that git gets in.
        if self.results.contains_key(&StepName::CreateBranch) {
            self.check_repository().await?;
        }
        Ok(())
    }

    /// Asks whether the repository takes a branch, and a pull request where one is wanted.
    pub(super) async fn check_repository(&self) -> Result<(), StepError> {
        let left =
            |step| self.order.steps.as_slice().contains(&step) && !self.results.contains_key(&step);
        if !left(StepName::CreatePr) && !left(StepName::Commit) {
            return Ok(());
        }
        let forge = match self.forge() {
            Ok(forge) if left(StepName::CreatePr) => {
                forge.require_token()?;
                forge
            }
            Err(error) if left(StepName::CreatePr) => return Err(error),
            // Another host, or none that we may ask about: git alone has to get in.
            Ok(forge) if forge.require_token().is_ok() => forge,
            Ok(_) | Err(_) => return Ok(()),
        };
        // What a folder allows, git finds out.
        let Forge::GitHub(_) = forge else { return Ok(()) };
        let facts = forge.verify().await?;
        let ordered = format!("{}/{}", self.order.url.owner(), self.order.url.name());
        let now = facts.full_name();
        if !now.eq_ignore_ascii_case(&ordered) {
            let told = json!({ "ordered": ordered, "now": now });
            self.journal.event("warning", "repository_moved", None, told).await;
        }
        Ok(facts.require_writable()?)
    }

    /// The pull request of the order when it was merged or closed without all that is to be delivered.
    async fn closed_pull_request(&mut self) -> Result<Option<FoundPullRequest>, StepError> {
        let wanted = self.order.steps.as_slice().contains(&StepName::CreatePr)
            && !self.results.contains_key(&StepName::CreatePr);
        let Some(branch) = self.order.branch.clone().filter(|_| wanted) else { return Ok(None) };
        let url = self.order.pull_request.clone();
        let pushed = self.store.find_intent(Effect::Push, &branch.full_ref()).await?.is_some();
        if url.is_none() && !pushed {
            return Ok(None);
        }
        let commit = self.results.get(&StepName::Commit);
        if commit.is_some_and(|commit| commit.get("no_changes").is_some()) {
            return Ok(None);
        }
        let commit = commit.and_then(|commit| commit.get("sha")).and_then(Value::as_str);
        let forge = self.forge()?;
        let found = forge.find_pull_request(&branch, url.as_deref(), commit).await?;
        Ok(found.filter(|found| found.state != PullRequestState::Open && !found.complete))
    }

    /// Goes on after a pull request that takes no more commits, where somebody asked for that.
    async fn go_on_after(&mut self, found: &FoundPullRequest) -> Result<(), StepError> {
        let made = self.results.get(&StepName::CreateBranch).and_then(|made| made.get("after"));
        let begun = made.cloned().and_then(|after| serde_json::from_value::<Delivered>(after).ok());
        let delivered = Delivered { number: found.number, head: found.head.clone() };
        if begun.as_ref() == Some(&delivered) {
            self.after = begun;
            return Ok(());
        }
        if !self.order.reopen {
            return Err(refusal(&self.order.id, found).into());
        }
        let merged = found.state == PullRequestState::Merged;
        // What is pushed and in no pull request yet gets one as it is.
        if merged && !self.results.contains_key(&StepName::Commit) {
            self.after = Some(delivered);
            self.order.plan.restarts = self.store.begin_anew(&BEGUN_ANEW).await?;
            self.results.retain(|step, _| !BEGUN_ANEW.contains(step));
        }
        info!(work_order.id = %self.order.id, merged, "the order goes on after its pull request");
        let facts = json!({ "pull_request": found.url, "merged": merged });
        self.journal.event("info", "pull_request_reopened", None, facts).await;
        Ok(())
    }

    /// What the order has pushed to a branch so far. What was merged of it may be replaced like the
    /// order's own, with what others had added before.
    pub(super) async fn push_history(&self, key: &str) -> Result<PushHistory, StepError> {
        let mut history = self.store.push_history(key, self.order.plan.restarts).await?;
        if let Some(Delivered { head, .. }) = &self.after
            && !history.replaced.contains(head)
        {
            history.replaced.push(head.clone());
        }
        Ok(history)
    }
}

/// Why an order does not go on.
fn refusal(order: &WorkOrderId, found: &FoundPullRequest) -> Failure {
    let url = &found.url;
    let text = match found.state {
        PullRequestState::Merged => format!(
            "pull request {url} was merged, so this order cannot add to it and nothing was done: order \
             further work anew with awo_enqueue, or have this order open another pull request from the \
             present base with awo_requeue('{order}', reopen => true) or archon-awo requeue {order} \
             --reopen"
        ),
        PullRequestState::Closed | PullRequestState::Open => format!(
            "pull request {url} was closed without being merged, so nothing was done: reopen it on its \
             page and requeue the order, or have this order open another pull request from its branch \
             with awo_requeue('{order}', reopen => true) or archon-awo requeue {order} --reopen"
        ),
    };
    Failure::lasting(ErrorClass::Forge, text)
}

/// Why work that was pushed is in no pull request.
pub(super) fn too_late(order: &WorkOrderId, branch: &str, url: &str, merged: bool) -> Failure {
    let ended = if merged { "merged" } else { "closed" };
    let text = format!(
        "pull request {url} was {ended} while this order worked, without its last commits: they are on \
         the branch {branch} and in no pull request; have one opened for them with \
         awo_requeue('{order}', from_step => 'create-pr', reopen => true) or archon-awo requeue {order} --from-step \
         create-pr --reopen"
    );
    Failure::lasting(ErrorClass::Forge, text)
}
