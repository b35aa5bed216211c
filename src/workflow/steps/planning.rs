//! `planning`: the agent writes a plan, as its answer or as a Markdown file in the repository.

use std::path::{Component, Path, PathBuf};

use serde_json::json;
use tokio::fs;

use super::resumed;
use crate::{
    domain::{ErrorClass, StepName, Task},
    git::Sandbox,
    store::StartedStep,
    workflow::{
        failure::{Failure, StepError},
        order_run::{OrderRun, StepResult},
        prompts::quote_untrusted,
        turn::Turn,
    },
};

/// Largest plan file that is read, in bytes.
const PLAN_LIMIT: u64 = 1024 * 1024;

/// Asks for the plan.
pub async fn run(run: &mut OrderRun<'_>, started: &StartedStep) -> Result<StepResult, StepError> {
    let sandbox = run.sandbox()?;
    // Kept for the next steps, so without secrets from here on.
    let request = run.workflow.redactor.text(&request_with_issue(run).await?);
    let prompt = run.workflow.commands.read(StepName::Planning).await?.render(&[&request]);
    let turn = Turn {
        step: StepName::Planning,
        task: Task::Plan,
        attempt: started.runs,
        label: String::new(),
        session: started.session_id,
        prompt: resumed(prompt, started),
    };
    let report = run.take_turn(&sandbox, turn).await?;
    let mut plan = report.text.trim().to_owned();
    if plan.is_empty() {
        plan = plan_file(&sandbox).await?.unwrap_or_default();
    }
    if plan.is_empty() {
        let text = "planning gave no plan: expected it as the agent's answer or as a Markdown file";
        return Err(Failure::lasting(ErrorClass::ToolError, text).into());
    }
    run.keep("plan", StepName::Planning, started, &plan).await?;
    Ok(StepResult {
        agent_name: run.workflow.agent_name(),
        output: json!({ "plan": run.clean(&plan), "request": request }),
        text: plan,
        class: None,
    })
}

/// The request, with the text of its issue quoted as data.
async fn request_with_issue(run: &OrderRun<'_>) -> Result<String, StepError> {
    let Some(number) = run.order.issue else { return Ok(run.order.request.clone()) };
    let issue = run.forge()?.issue(number).await?;
    let quoted = quote_untrusted(&issue.title, &issue.body);
    Ok(format!("{}\n\nThe request refers to issue {number}:\n\n{quoted}", run.order.request))
}

/// The first Markdown file that the agent wrote. A link is not followed: it may lead anywhere.
async fn plan_file(sandbox: &Sandbox) -> Result<Option<String>, StepError> {
    let diff = sandbox.changes().await?.diff;
    let written = diff.lines().filter_map(|line| line.strip_prefix("+++ b/"));
    for name in written.filter(|name| Path::new(name).extension().is_some_and(|e| e == "md")) {
        let Some(path) = inside(&sandbox.checkout, Path::new(name)).await else { continue };
        let Ok(text) = fs::read_to_string(&path).await else { continue };
        if !text.trim().is_empty() {
            return Ok(Some(text.trim().to_owned()));
        }
    }
    Ok(None)
}

async fn inside(root: &Path, name: &Path) -> Option<PathBuf> {
    let mut path = root.to_owned();
    for part in name.components() {
        let Component::Normal(part) = part else { return None };
        path.push(part);
        if fs::symlink_metadata(&path).await.ok()?.is_symlink() {
            return None;
        }
    }
    let found = fs::symlink_metadata(&path).await.ok()?;
    (found.is_file() && found.len() <= PLAN_LIMIT).then_some(path)
}
