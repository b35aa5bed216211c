//! `planning`: the agent writes a plan, as its answer or as a Markdown file in the repository.

use std::path::Path;

use serde_json::json;

use super::resumed;
use crate::{
    domain::{ErrorClass, StepName, Task},
    git::{Sandbox, Undone},
    store::StartedStep,
    workflow::{
        answer::{Lead, only_leads, unwrapped},
        failure::{Failure, StepError},
        order_run::{OrderRun, StepResult},
        prompts::quote_untrusted,
        turn::Turn,
    },
};

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
    let answer = run.take_turn(&sandbox, turn).await?;
    let mut said = unwrapped(&answer.text, Lead::Pointing);
    if only_leads(&said) {
        let why = "it leads to a plan and is none";
        run.note_unused(StepName::Planning, "plan", &said, why).await;
        said.clear();
    }
    let plan = plan_of(&sandbox, &answer.undone, &said).await;
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

/// The plan: what the agent said, or the Markdown file that it wrote instead.
pub async fn plan_of(sandbox: &Sandbox, undone: &Undone, said: &str) -> String {
    let mut plan = said.to_owned();
    // Without an answer, a file that was there may have become the plan.
    let written = undone.written(said.is_empty());
    for path in written {
        if !is_meant(&path, said) {
            continue;
        }
        let text = sandbox.undone_text(undone, path).await.unwrap_or_default();
        // A summary of the file is shorter than the file.
        if text.trim().len() > plan.len() {
            text.trim().clone_into(&mut plan);
        }
    }
    plan
}

/// Whether a new file is the plan: it is Markdown, and called so, spoken of, or all there is.
fn is_meant(path: &Path, said: &str) -> bool {
    let is_markdown = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("md"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_plan = name.to_ascii_lowercase().contains("plan");
    is_markdown && (said.is_empty() || is_plan || said.contains(name.as_ref()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::is_meant;

    #[test]
    fn a_plan_is_known_by_its_name_or_by_what_is_said_of_it() {
        for (path, said) in [
            ("PLAN.md", "Done."),
            ("docs/button_plan.MD", "Done."),
            ("PRPs/button.md", "I wrote PRPs/button.md."),
            ("notes.md", ""),
        ] {
            assert!(is_meant(Path::new(path), said), "{path} {said:?}");
        }
        for (path, said) in [("notes.md", "1. Do it."), ("plan.txt", "See plan.txt"), ("plan", "")]
        {
            assert!(!is_meant(Path::new(path), said), "{path} {said:?}");
        }
    }
}
