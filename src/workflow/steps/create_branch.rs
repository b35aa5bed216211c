//! `create-branch`: a sandbox with its own branch, from the repository's cache.

use std::collections::BTreeSet;

use serde_json::json;

use crate::{
    domain::{BranchName, StepName, branch_name, clash},
    git::{GitError, Mirror},
    store::{Effect, OrderFacts},
    workflow::{
        failure::StepError,
        order_run::{OrderRun, StepResult},
    },
};

/// Makes the sandbox, or reopens the one a dead worker made.
pub async fn run(run: &mut OrderRun<'_>) -> Result<StepResult, StepError> {
    let git = &run.workflow.git;
    let order = &run.order;
    if order.steps.as_slice().contains(&StepName::CreatePr) || order.issue.is_some() {
        // Better now than after the work: a host without a forge we know opens no pull request.
        run.forge()?;
    }
    let mirror = git.refresh_mirror_of(&run.remote(), order.plan.history).await?;
    run.check_repository().await?;
    let found = git.find_sandbox(&order.id, &order.url).await?;
    let branch = match found {
        // Made by a worker that died before it could say so.
        Some(sandbox) if sandbox.restarts == order.plan.restarts => sandbox.branch,
        found => {
            if order.plan.restarts > 0 {
                leave_earlier_work(run, &mirror, found.is_some()).await?;
            }
            choose_branch(run, &mirror).await?
        }
    };
    let sandbox = git.open_sandbox(&mirror, &order.id, &branch, &order.plan).await?;
    // It may have been made before the policy of its repository came to want them.
    let sandbox = if order.plan.parts.lfs { sandbox.keep_lfs().await? } else { sandbox };
    run.learn(OrderFacts {
        branch: Some(sandbox.branch.to_string()),
        sandbox: Some(order.id.to_string()),
        ..OrderFacts::default()
    })
    .await?;
    let result = StepResult {
        agent_name: "runner",
        output: json!({ "branch": sandbox.branch.as_str(), "base_branch": sandbox.base_branch,
            "base_commit": sandbox.base_commit, "after": run.after }),
        text: format!(
            "Branch {} from {} at {} ({:?})",
            sandbox.branch, sandbox.base_branch, sandbox.base_commit, mirror.transfer
        ),
        class: None,
    };
    run.enter_sandbox(sandbox);
    Ok(result)
}

/// The order begins anew: what there is of it is saved and taken away. A branch on which others have worked is
/// left as it is, and so is everything else then.
async fn leave_earlier_work(
    run: &OrderRun<'_>,
    mirror: &Mirror,
    has_sandbox: bool,
) -> Result<(), StepError> {
    let (git, order) = (&run.workflow.git, &run.order);
    if let Some(branch) = &order.branch {
        let history = run.push_history(&branch.full_ref()).await?;
        let own: Vec<String> = history.replaced.into_iter().chain(history.ours).collect();
        let there = git.branch_head(&mirror.remote, branch).await?.filter(|_| !own.is_empty());
        if let Some(found) = there.clone().filter(|there| !own.contains(there)) {
            return Err(GitError::OthersWork { branch: branch.to_string(), found }.into());
        }
        if let (Some(there), false) = (there, has_sandbox) {
            // The remote alone has it, and the next push replaces it there.
            git.sandbox_of_branch(mirror, &order.id, branch, &order.plan, &there).await?;
            return run.set_sandbox_aside().await;
        }
    }
    if has_sandbox { run.set_sandbox_aside().await } else { Ok(()) }
}

/// The branch that the order has already, as long as it can stand beside the others; else a new one.
async fn choose_branch(run: &OrderRun<'_>, mirror: &Mirror) -> Result<BranchName, StepError> {
    let order = &run.order;
    let mut others: BTreeSet<String> = (*mirror.branches).clone();
    if let Some(branch) = &order.branch {
        let history = run.push_history(&branch.full_ref()).await?;
        let is_known = !history.ours.is_empty() || !history.replaced.is_empty();
        // Only what this order may have pushed is its own.
        if is_known {
            others.remove(branch.as_str());
        }
        if clash(branch, others.iter().map(String::as_str)).is_none() {
            return Ok(branch.clone());
        }
        if history.is_open {
            let result = json!({ "given_up": true });
            run.store.complete_effect(Effect::Push, &branch.full_ref(), &result).await?;
        }
    }
    // The name is public: no part of a secret may become a word of it.
    let request = run.workflow.redactor.text(&order.request);
    Ok(branch_name(&request, &order.id, &others))
}
