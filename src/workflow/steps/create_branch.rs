//! `create-branch`: a sandbox with its own branch, from the repository's cache.

use serde_json::json;

use crate::{
    domain::{StepName, branch_name},
    store::OrderFacts,
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
    // The name is public: no part of a secret may become a word of it.
    let request = run.workflow.redactor.text(&order.request);
    let branch = order.branch.clone().unwrap_or_else(|| branch_name(&request, &order.id));
    let work = async {
        let mirror = git.refresh_mirror_of(&run.remote(), order.plan.history).await?;
        let sandbox = git.open_sandbox(&mirror, &order.id, &branch, &order.plan).await?;
        // It may have been made before the policy of its repository came to want them.
        let sandbox = if order.plan.parts.lfs { sandbox.keep_lfs().await? } else { sandbox };
        Ok::<_, StepError>((mirror, sandbox))
    };
    let (mirror, sandbox) = tokio::select! {
        done = work => done?,
        reason = run.lease.aborted() => return Err(StepError::Stopped(reason)),
    };
    run.learn(OrderFacts {
        branch: Some(sandbox.branch.to_string()),
        sandbox: Some(order.id.to_string()),
        ..OrderFacts::default()
    })
    .await?;
    let result = StepResult {
        agent_name: "runner",
        output: json!({ "branch": sandbox.branch.as_str(), "base_branch": sandbox.base_branch,
            "base_commit": sandbox.base_commit }),
        text: format!(
            "Branch {} from {} at {} ({:?})",
            sandbox.branch, sandbox.base_branch, sandbox.base_commit, mirror.transfer
        ),
        class: None,
    };
    run.enter_sandbox(sandbox);
    Ok(result)
}
