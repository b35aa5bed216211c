//! `create-pr`: one pull request for the branch, found or opened.

use serde_json::{Value, json};

use crate::{
    domain::{ErrorClass, StepName, Task},
    forge::{PullRequest, PullRequestOutcome},
    store::{Effect, OrderFacts, StartedStep},
    workflow::{
        delivered::too_late,
        failure::{Failure, StepError},
        order_run::{OrderRun, StepResult},
        pull_request_text::{self, title_and_body},
        turn::Turn,
    },
};

/// What the agent is asked for.
const WORDS: &str = "title and description of the pull request";

/// Opens the pull request, unless there is nothing to deliver.
pub async fn run(run: &mut OrderRun<'_>, started: &StartedStep) -> Result<StepResult, StepError> {
    let commit = run.results.get(&StepName::Commit).cloned().unwrap_or_default();
    if commit.get("no_changes").is_some() {
        return Ok(nothing());
    }
    let word = |name: &str| commit.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let head = word("branch").parse().map_err(|error: crate::domain::InvalidBranch| {
        Failure::lasting(ErrorClass::Invalid, error.to_string())
    })?;
    let (title, body) = words(run, &commit, started).await?;
    // The forge cuts secrets out of what it sends; the intent is stored here.
    let redactor = &run.workflow.redactor;
    let (title, body) = (redactor.page(&title), redactor.page(&body));
    let key = word("branch");
    let intent = json!({ "title": title, "body": body, "base": word("base_branch") });
    run.store.intend(Effect::PullRequest, &key, &intent).await?;
    run.check_fresh().await?;
    let request = PullRequest {
        order: run.order.id.clone(),
        head,
        base: word("base_branch"),
        title,
        body,
        commit: word("sha"),
        reopen: run.order.reopen,
    };
    let forge = run.forge()?;
    let outcome = forge.ensure_pull_request(&request).await?;
    let url = outcome.url().map(str::to_owned);
    run.store.complete_effect(Effect::PullRequest, &key, &json!({ "url": url })).await?;
    if matches!(outcome, PullRequestOutcome::NoChanges) {
        return Ok(nothing());
    }
    if let PullRequestOutcome::AlreadyClosed { url, merged, complete: false, .. } = &outcome {
        return Err(too_late(&run.order.id, &word("branch"), url, *merged).into());
    }
    run.learn(OrderFacts { pull_request_url: url.clone(), ..OrderFacts::default() }).await?;
    Ok(StepResult {
        agent_name: "runner",
        output: json!({ "url": url }),
        text: format!("{}\n\n{}", url.unwrap_or_default(), request.title),
        class: None,
    })
}

fn nothing() -> StepResult {
    StepResult {
        agent_name: "runner",
        output: json!({ "no_changes": true }),
        text: "There is nothing to deliver: no pull request.".to_owned(),
        class: Some(ErrorClass::NoChanges),
    }
}

/// Title and body: those of an earlier run of this step, else the agent's, else ours.
async fn words(
    run: &mut OrderRun<'_>,
    commit: &Value,
    started: &StartedStep,
) -> Result<(String, String), StepError> {
    let text = |name: &str| commit.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let before = run.store.find_intent(Effect::PullRequest, &text("branch")).await?;
    if let Some(record) = before.filter(|record| record.result.is_none()) {
        let word = |name: &str| record.intent.get(name).and_then(Value::as_str).map(str::to_owned);
        if let (Some(title), Some(body)) = (word("title"), word("body")) {
            return Ok((title, body));
        }
    }
    let number = |name: &str| commit.get(name).and_then(Value::as_u64).unwrap_or_default();
    let plan = run.results.get(&StepName::Planning).and_then(|result| result.get("plan"));
    let plan = plan.and_then(Value::as_str).unwrap_or_default().to_owned();
    let stat = format!(
        "{} files changed, {} lines added, {} removed",
        number("files_changed"),
        number("insertions"),
        number("deletions")
    );
    let command = run.workflow.commands.read(StepName::CreatePr).await?;
    let files = number("files_changed");
    // Who has a command file of his own for it wants it asked.
    let said = run.said_by_author("pull_request").filter(|_| command.source().is_none());
    if let Some(said) = said {
        let Some(why) = pull_request_text::unused(&said) else {
            let order = &run.order;
            return Ok(title_and_body(Some(&said), &order.request, &plan, files, &order.id));
        };
        run.note_unused(StepName::CreatePr, WORDS, &said, &why).await;
    }
    let prompt = command.render(&[&run.order.whole_request(), &plan, &stat, &text("message")]);
    let proposed = match run.sandbox() {
        Err(_) => None,
        Ok(sandbox) => {
            let turn = Turn {
                step: StepName::CreatePr,
                task: Task::PullRequest,
                attempt: started.runs,
                label: String::new(),
                // Whoever was asked for the message knows the change.
                session: run.session_of(StepName::Commit),
                prompt,
            };
            match run.take_turn(&sandbox, turn).await {
                Ok(answer) => {
                    if let Some(why) = pull_request_text::unused(&answer.text) {
                        run.note_unused(StepName::CreatePr, WORDS, &answer.text, &why).await;
                    }
                    Some(answer.text)
                }
                Err(StepError::Failed(failure)) => {
                    run.note_unused(StepName::CreatePr, WORDS, "", &failure.message).await;
                    None
                }
                Err(stopped) => return Err(stopped),
            }
        }
    };
    Ok(title_and_body(proposed.as_deref(), &run.order.request, &plan, files, &run.order.id))
}
