//! The six steps. Adding one is adding its name to `domain::StepName` and an arm here.

mod commit;
mod create_branch;
mod create_pr;
mod execute;
mod other_worktrees;
mod planning;
mod prp_review;

pub use commit::stat;
pub use planning::plan_of;

use super::{
    Workflow,
    failure::StepError,
    order_run::{OrderRun, StepResult},
};
use crate::{domain::StepName, store::StartedStep};

/// Runs one step.
pub async fn run(
    run: &mut OrderRun<'_>,
    step: StepName,
    started: &StartedStep,
) -> Result<StepResult, StepError> {
    match step {
        StepName::CreateBranch => create_branch::run(run).await,
        StepName::Planning => planning::run(run, started).await,
        StepName::Execute => execute::run(run, started).await,
        StepName::PrpReview => prp_review::run(run, started).await,
        StepName::Commit => commit::run(run, started).await,
        StepName::CreatePr => create_pr::run(run, started).await,
    }
}

/// Who does a step: the agent, or the runner itself.
pub fn agent_name(workflow: &Workflow, step: StepName) -> &'static str {
    match step {
        StepName::Planning | StepName::Execute | StepName::PrpReview => workflow.agent_name(),
        StepName::CreateBranch | StepName::Commit | StepName::CreatePr => "runner",
    }
}

/// The prompt again, with the news that an earlier run of the step was interrupted, if it was.
fn resumed(prompt: String, started: &StartedStep) -> String {
    if !started.interrupted {
        return prompt;
    }
    // What is always the same stands first.
    format!(
        "{prompt}\n\nAn earlier run of this task was interrupted. Look at what is already there, keep what \
         is good, and finish the task.\n"
    )
}
