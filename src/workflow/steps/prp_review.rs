//! `prp-review`: the agent reviews its change; blockers go back to it, up to a limit.

use serde_json::{Value, json};
use uuid::Uuid;

use super::resumed;
use crate::{
    domain::{ErrorClass, StepName, Task},
    git::Sandbox,
    store::StartedStep,
    workflow::{
        failure::{Failure, StepError},
        order_run::{OrderRun, StepResult},
        review::{self, Review},
        turn::Turn,
    },
};

/// Reviews until nothing blocks, handing blockers back in between.
pub async fn run(run: &mut OrderRun<'_>, started: &StartedStep) -> Result<StepResult, StepError> {
    let sandbox = run.sandbox()?;
    let rounds = run.workflow.settings.review_rounds;
    let mut round = 0;
    loop {
        let review = ask(run, &sandbox, started, round).await?;
        if review.passed {
            run.keep("review", StepName::PrpReview, started, &pretty(&review)).await?;
            return Ok(StepResult {
                agent_name: run.workflow.agent_name(),
                output: json!({ "passed": true, "summary": run.clean(&review.summary),
                    "issues": review.issues.len(), "rounds": round }),
                text: pretty(&review),
                class: None,
            });
        }
        if round == rounds {
            run.keep("review", StepName::PrpReview, started, &pretty(&review)).await?;
            return Err(refused(&review, rounds).into());
        }
        round += 1;
        let facts = json!({ "round": round, "blockers": review.blockers().count() });
        run.journal.event("warning", "review_handed_back", Some(StepName::PrpReview), facts).await;
        let turn = Turn {
            step: StepName::PrpReview,
            task: Task::Fix,
            attempt: started.runs,
            label: format!("fix-{round}"),
            session: execute_session(run).unwrap_or(started.session_id),
            prompt: review::hand_back(&review),
        };
        run.take_turn(&sandbox, turn).await?;
    }
}

/// One review; an answer without a verdict is asked for once more.
async fn ask(
    run: &mut OrderRun<'_>,
    sandbox: &Sandbox,
    started: &StartedStep,
    round: u32,
) -> Result<Review, StepError> {
    let plan = run.results.get(&StepName::Planning).and_then(|result| result.get("plan"));
    let plan = plan.and_then(Value::as_str).unwrap_or_default().to_owned();
    let changes = sandbox.changes().await?;
    let summary = format!(
        "{} files changed, {} lines added, {} removed",
        changes.files_changed, changes.insertions, changes.deletions
    );
    let command = run.workflow.commands.read(StepName::PrpReview).await?;
    let prompt = command.render(&[&run.order.whole_request(), &plan, &summary]);
    // Each turn has files of its own.
    let turn = |task: Task, label: &str, prompt| Turn {
        step: StepName::PrpReview,
        task,
        attempt: started.runs,
        label: match (round, label) {
            (0, label) => label.to_owned(),
            (_, "") => format!("round-{round}"),
            _ => format!("round-{round}-{label}"),
        },
        session: started.session_id,
        prompt,
    };
    let report = run.take_turn(sandbox, turn(Task::Review, "", resumed(prompt, started))).await?;
    if let Ok(review) = review::parse(&report.text) {
        return Ok(review);
    }
    let again =
        run.take_turn(sandbox, turn(Task::Verdict, "again", review::ASK_AGAIN.to_owned())).await?;
    Ok(review::parse(&again.text)?)
}

fn execute_session(run: &OrderRun<'_>) -> Option<Uuid> {
    run.results.get(&StepName::Execute)?.get("session")?.as_str()?.parse().ok()
}

fn pretty(review: &Review) -> String {
    serde_json::to_string_pretty(review).unwrap_or_default()
}

fn refused(review: &Review, rounds: u32) -> Failure {
    let blockers: Vec<&str> = review.blockers().map(|issue| issue.description.as_str()).collect();
    let words = if blockers.is_empty() { review.summary.clone() } else { blockers.join("; ") };
    Failure::lasting(
        ErrorClass::ToolError,
        format!("the review still refuses the change after {rounds} rounds of fixes: {words}"),
    )
}
