//! `execute`: the agent changes the code after the plan, or after what was said since.

use serde_json::{Value, json};

use super::{other_worktrees::tell_other_worktrees, resumed};
use crate::{
    domain::{StepName, Task},
    store::{OrderFacts, StartedStep},
    workflow::{
        failure::StepError,
        order_run::{OrderRun, StepResult},
        turn::Turn,
        words::Words,
    },
};

/// Asks for the change.
pub async fn run(run: &mut OrderRun<'_>, started: &StartedStep) -> Result<StepResult, StepError> {
    let sandbox = run.sandbox()?;
    let planning = run.results.get(&StepName::Planning).cloned().unwrap_or_default();
    let plan = planning.get("plan").and_then(Value::as_str).unwrap_or_default();
    let request = planning.get("request").and_then(Value::as_str).unwrap_or(&run.order.request);
    let before = run.order.with_answered(request);
    let commands = &run.workflow.commands;
    let (task, prompt) = match run.order.waiting_prompts() {
        None => (Task::Change, commands.read(StepName::Execute).await?.render(&[plan, &before])),
        Some(said) => {
            let command = commands.read_follow_up().await?;
            (Task::FollowUp, command.render(&[&said, &before, plan]))
        }
    };
    let prompt = with_conflicts(resumed(prompt, started), &sandbox.conflicts);
    let turn = Turn {
        step: StepName::Execute,
        task,
        attempt: started.runs,
        label: String::new(),
        session: started.session_id,
        prompt,
    };
    let answer = run.take_turn(&sandbox, turn).await?;
    let (words, text) = Words::take(&answer.text);
    tell_other_worktrees(run, &sandbox, (StepName::Execute, &[])).await?;
    let changes = sandbox.changes().await?;
    run.learn(OrderFacts {
        files_changed: i32::try_from(changes.files_changed).ok(),
        ..OrderFacts::default()
    })
    .await?;
    let session = answer.session.unwrap_or(started.session_id);
    let mut output = json!({ "files_changed": changes.files_changed, "session": session });
    words.put_into(&mut output);
    Ok(StepResult { agent_name: run.workflow.agent_name(), output, text, class: None })
}

/// The prompt, with the files in which others have changed the same places.
fn with_conflicts(prompt: String, files: &[String]) -> String {
    if files.is_empty() {
        return prompt;
    }
    let list: Vec<String> = files.iter().map(|file| format!("- {file:?}")).collect();
    format!(
        "{prompt}\n\nOthers have pushed to the branch meanwhile, and their work is here. In these files they \
         changed the same places as you; where both versions stand between lines that begin with <<<<<<< and \
         >>>>>>>, resolve the conflict and remove those lines:\n\n{}\n",
        list.join("\n")
    )
}
