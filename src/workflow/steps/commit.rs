//! `commit`: the runner commits what the agent left and pushes the branch.

use serde_json::json;

use crate::{
    domain::{ErrorClass, StepName, Task},
    git::{Changes, CommitInfo, GitError, LeftOut, Pushed, Sandbox},
    store::{Effect, OrderFacts, PushHistory, StartedStep},
    workflow::{
        failure::{Failure, StepError},
        message::{self, commit_message},
        order_run::{OrderRun, StepResult},
        turn::Turn,
    },
};

/// Commits and pushes, or finds that there is nothing to deliver.
pub async fn run(run: &mut OrderRun<'_>, started: &StartedStep) -> Result<StepResult, StepError> {
    let sandbox = run.sandbox()?;
    let changes = sandbox.changes().await?;
    if let Some(refused) = &changes.refused {
        // Before the agent is asked for words.
        return Err(Failure::lasting(ErrorClass::Invalid, refused).into());
    }
    tell_left_out(run, &changes.left_out).await;
    let message = match sandbox.head().await? {
        // An earlier run of this step committed all there is: same message, so the same commit.
        Some(head) if !changes.uncommitted => head.message,
        None if changes.files_changed == 0 => return nothing(&changes.left_out),
        _ => propose(run, &sandbox, &changes, started).await?,
    };
    let key = sandbox.branch.full_ref();
    let history = run.push_history(&key).await?;
    renew(run, &sandbox, &history, &changes).await?;
    let Some(commit) = sandbox.commit(&message).await? else {
        if history.is_open {
            // What was meant is taken back: an effect is not left without its result.
            let result = json!({ "given_up": true });
            run.store.complete_effect(Effect::Push, &key, &result).await?;
        }
        return nothing(&changes.left_out);
    };
    run.keep("diff", StepName::Commit, started, &changes.diff).await?;
    let pushed = push(run, &sandbox, &commit, &history).await?;
    run.learn(OrderFacts {
        commits: i32::try_from(commit.commit_count).ok(),
        files_changed: i32::try_from(commit.files_changed).ok(),
        ..OrderFacts::default()
    })
    .await?;
    Ok(StepResult {
        agent_name: "runner",
        output: json!({ "sha": commit.sha, "message": commit.message,
            "base_branch": sandbox.base_branch, "branch": sandbox.branch.as_str(),
            "files_changed": commit.files_changed, "insertions": changes.insertions,
            "deletions": changes.deletions, "commit_count": commit.commit_count,
            "left_out": changes.left_out.count() }),
        text: format!(
            "{}\n\n{} files changed, pushed as {}{}{}",
            commit.message,
            commit.files_changed,
            pushed.sha,
            if pushed.already_there { " (it was there already)" } else { "" },
            line(&changes.left_out)
        ),
        class: None,
    })
}

/// An order without a delivery, unless something is there that no commit holds: a person has to look at that.
fn nothing(left_out: &LeftOut) -> Result<StepResult, StepError> {
    if !left_out.is_empty() {
        let sentence = format!(
            "there is nothing to commit, but the agent left what no commit can hold: {left_out}; say what \
             should become of it with archon-awo prompt (for example that the files are to be kept without \
             their .git); it is saved before the sandbox is removed"
        );
        return Err(Failure::lasting(ErrorClass::Invalid, sentence).into());
    }
    Ok(StepResult {
        agent_name: "runner",
        output: json!({ "no_changes": true }),
        text: "The agent changed nothing: there is nothing to commit.".to_owned(),
        class: Some(ErrorClass::NoChanges),
    })
}

/// Logs what the commit does not hold.
async fn tell_left_out(run: &OrderRun<'_>, left_out: &LeftOut) {
    if left_out.is_empty() {
        return;
    }
    let files: Vec<_> = left_out
        .listed()
        .into_iter()
        .map(|(path, why)| json!({ "path": path, "why": why }))
        .collect();
    let facts = json!({ "count": left_out.count(), "files": files });
    run.journal.event("warning", "files_left_out", Some(StepName::Commit), facts).await;
}

/// What the commit does not hold, as a line of the step's text.
fn line(left_out: &LeftOut) -> String {
    if left_out.is_empty() {
        return String::new();
    }
    format!("\n\nNot committed: {left_out}. It is saved before the sandbox is removed.")
}

/// The agent's words for the commit, or safe ones of ours.
async fn propose(
    run: &mut OrderRun<'_>,
    sandbox: &Sandbox,
    changes: &Changes,
    started: &StartedStep,
) -> Result<String, StepError> {
    let command = run.workflow.commands.read(StepName::Commit).await?;
    // Who has a command file of his own for it wants it asked.
    let said = run.said_by_author("commit_message").filter(|_| command.source().is_none());
    if let Some(said) = said {
        let Some(why) = message::unused(&said) else {
            return Ok(commit_message(Some(&said), run.order.latest_words(), &run.order.id));
        };
        run.note_unused(StepName::Commit, "commit message", &said, &why).await;
    }
    let prompt = command.render(&[run.order.latest_words(), &stat(changes)]);
    let turn = Turn {
        step: StepName::Commit,
        task: Task::CommitMessage,
        attempt: started.runs,
        label: String::new(),
        session: started.session_id,
        prompt,
    };
    let proposed = match run.take_turn(sandbox, turn).await {
        Ok(answer) => {
            if let Some(why) = message::unused(&answer.text) {
                run.note_unused(StepName::Commit, "commit message", &answer.text, &why).await;
            }
            Some(answer.text)
        }
        // The change is good without the agent's words for it.
        Err(StepError::Failed(failure)) => {
            run.note_unused(StepName::Commit, "commit message", "", &failure.message).await;
            None
        }
        Err(stopped) => return Err(stopped),
    };
    Ok(commit_message(proposed.as_deref(), run.order.latest_words(), &run.order.id))
}

/// What a model is told of a change: the numbers and the names of the files.
pub fn stat(changes: &Changes) -> String {
    let mut text = format!(
        "{} files changed, {} lines added, {} removed",
        changes.files_changed, changes.insertions, changes.deletions
    );
    for line in changes.diff.lines().filter(|line| line.starts_with("diff --git ")).take(200) {
        text.push('\n');
        text.push_str(line);
    }
    text
}

/// Takes back commits that the remote does not have and that are not all there is: it may have refused what
/// they hold.
async fn renew(
    run: &OrderRun<'_>,
    sandbox: &Sandbox,
    history: &PushHistory,
    changes: &Changes,
) -> Result<(), StepError> {
    if sandbox.head().await?.is_none() {
        return Ok(());
    }
    let (remote, arrived) = (run.remote(), history.arrived.as_deref());
    Ok(sandbox.renew_unpushed(&remote, arrived, changes.uncommitted).await?)
}

/// Pushes under a lease on the remote ref: it must be absent, or hold what is a part of the branch or what
/// this order pushed before it began anew.
async fn push(
    run: &OrderRun<'_>,
    sandbox: &Sandbox,
    commit: &CommitInfo,
    history: &PushHistory,
) -> Result<Pushed, StepError> {
    let key = sandbox.branch.full_ref();
    run.store.intend(Effect::Push, &key, &history.intent(&commit.sha)).await?;
    run.check_fresh().await?;
    let remote = run.remote();
    match sandbox.push(&remote, &history.replaced).await {
        Ok(pushed) => {
            let result = json!({ "sha": pushed.sha, "already_there": pushed.already_there });
            run.store.complete_effect(Effect::Push, &key, &result).await?;
            Ok(pushed)
        }
        Err(error) => {
            if let GitError::Rejected { detail, answer, .. } = &error {
                // The sentence has room for a part of it.
                let facts = json!({ "branch": sandbox.branch.as_str(), "sha": commit.sha,
                    "reason": detail, "answer": answer });
                run.journal.event("warning", "push_refused", Some(StepName::Commit), facts).await;
            }
            if !error.retryable() {
                // It is certain that nothing arrived.
                let result = json!({ "refused": run.clean(&error.to_string()) });
                run.store.complete_effect(Effect::Push, &key, &result).await?;
            }
            Err(error.into())
        }
    }
}
