//! `prp-review`: the agent reviews its change; blockers go back to it, up to a limit.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{other_worktrees::tell_other_worktrees, resumed};
use crate::{
    domain::{ErrorClass, StepName, Task},
    git::{Changes, Sandbox},
    store::StartedStep,
    workflow::{
        failure::{Failure, StepError},
        order_run::{OrderRun, StepResult},
        review::{self, Review, ReviewError},
        turn::Turn,
        words::Words,
    },
};

/// Reviews until nothing blocks, handing blockers back in between. A change that is empty is not reviewed.
pub async fn run(run: &mut OrderRun<'_>, started: &StartedStep) -> Result<StepResult, StepError> {
    let sandbox = run.sandbox()?;
    let rounds = run.workflow.settings.review_rounds;
    let (mut round, mut words) = (0, Words::default());
    loop {
        let changes = sandbox.changes().await?;
        if changes.files_changed == 0 && !changes.uncommitted {
            return Ok(nothing(round));
        }
        let review = ask(run, &sandbox, &changes, (started, round)).await?;
        if review.passed {
            run.keep("review", StepName::PrpReview, started, &pretty(&review)).await?;
            let mut output = json!({ "passed": true, "summary": run.clean(&review.summary),
                "issues": review.issues.len(), "rounds": round });
            words.put_into(&mut output);
            return Ok(StepResult {
                agent_name: run.workflow.agent_name(),
                output,
                text: pretty(&review),
                class: None,
            });
        }
        if round == rounds {
            run.keep_said(started, &pretty(&review)).await?;
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
        let known = sandbox.other_worktrees().await?;
        let answer = run.take_turn(&sandbox, turn).await?;
        tell_other_worktrees(run, &sandbox, (StepName::PrpReview, &known)).await?;
        words.update(Words::take(&answer.text).0);
    }
}

fn nothing(rounds: u32) -> StepResult {
    StepResult {
        agent_name: "runner",
        output: json!({ "passed": true, "no_changes": true, "issues": 0, "rounds": rounds }),
        text: "The agent changed nothing: there is nothing to review.".to_owned(),
        class: Some(ErrorClass::NoChanges),
    }
}

/// One review; an answer without a verdict is asked for once more.
async fn ask(
    run: &mut OrderRun<'_>,
    sandbox: &Sandbox,
    changes: &Changes,
    (started, round): (&StartedStep, u32),
) -> Result<Review, StepError> {
    let plan = run.results.get(&StepName::Planning).and_then(|result| result.get("plan"));
    let plan = plan.and_then(Value::as_str).unwrap_or_default().to_owned();
    let summary = format!(
        "{} files changed, {} lines added, {} removed",
        changes.files_changed, changes.insertions, changes.deletions
    );
    let command = run.workflow.commands.read(StepName::PrpReview).await?;
    let mut prompt = command.render(&[&run.order.whole_request(), &plan, &summary]);
    if round == 0 {
        prompt = resumed(prompt, started);
    }
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
    let answer = run.take_turn(sandbox, turn(Task::Review, "", prompt)).await?;
    if let Ok(review) = read(run, &answer.text).await {
        return Ok(review);
    }
    let again = turn(Task::Verdict, "again", review::ASK_AGAIN.to_owned());
    let again = run.take_turn(sandbox, again).await?;
    match read(run, &again.text).await {
        Ok(review) => Ok(review),
        Err(error) => {
            // It may have said what matters, only not in the form.
            let said = format!("{}\n\n{}", answer.text.trim(), again.text.trim());
            run.keep_said(started, said.trim()).await?;
            Err(error.into())
        }
    }
}

/// The verdict in an answer; one that is not taken, or not as it was meant, is told.
async fn read(run: &OrderRun<'_>, answer: &str) -> Result<Review, ReviewError> {
    let read = review::parse(answer);
    match &read {
        Err(error) => {
            run.note_unused(StepName::PrpReview, "review", answer, &error.to_string()).await;
        }
        Ok(review) if review.overruled => {
            let why = "it finds blockers: a change with blockers has not passed";
            run.note_unused(StepName::PrpReview, "\"passed\": true", answer, why).await;
        }
        Ok(_) => {}
    }
    read
}

impl OrderRun<'_> {
    /// Keeps what the reviewer said in a step that fails all the same.
    async fn keep_said(&mut self, started: &StartedStep, text: &str) -> Result<(), StepError> {
        self.keep("review", StepName::PrpReview, started, text).await?;
        self.note_said(text);
        Ok(())
    }
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
