//! `archon-awo show`: one work order with its steps, attempts and artifacts.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{
    open_store,
    output::{Output, first_line, plain, seconds, status, time},
};
use crate::{
    config::Config,
    domain::ModelUsage,
    exit::CommandError,
    store::{Artifact, Attempt, OrderDetail, Prompt, StepRun},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The work order.
    id: String,
}

/// Everything about one order.
#[derive(Debug, Serialize)]
struct Story {
    #[serde(flatten)]
    order: OrderDetail,
    prompts: Vec<Prompt>,
    steps: Vec<StepRun>,
    attempts: Vec<Attempt>,
    artifacts: Vec<Artifact>,
}

pub(super) async fn run(args: &Args, config: &Config, output: &Output) -> anyhow::Result<()> {
    let database = open_store(config).await?;
    let order = database.find_order(&args.id).await?;
    let order = order.ok_or_else(|| CommandError::NoSuchOrder(args.id.clone()))?;
    let story = Story {
        prompts: database.prompts(order.job_id).await?,
        steps: database.step_runs(&args.id).await?,
        attempts: database.attempts(order.job_id).await?,
        artifacts: database.artifacts(&args.id).await?,
        order,
    };
    if output.is_json() {
        return output.document(&story);
    }
    print_order(&story.order, output)?;
    print_cancel(&story, output)?;
    if !story.prompts.is_empty() {
        output.line("")?;
        output.table(&["SAID LATER (UTC)", "ANSWERED", "PROMPT"], &prompts(&story))?;
    }
    if !story.steps.is_empty() {
        output.line("")?;
        output
            .table(&["STEP", "RUN", "RESULT", "TIME", "AGENT", "COST", "ERROR"], &steps(&story))?;
    }
    if !story.attempts.is_empty() {
        output.line("")?;
        let headings = ["ATTEMPT", "CLAIMED (UTC)", "FROM STEP", "RESULT", "WORKER", "ERROR"];
        output.table(&headings, &attempts(&story))?;
    }
    if !story.artifacts.is_empty() {
        output.line("")?;
        output.table(&["ARTIFACT", "STEP", "BYTES", "PATH"], &artifacts(&story))?;
    }
    Ok(())
}

fn print_order(order: &OrderDetail, output: &Output) -> anyhow::Result<()> {
    let line = |name: &str, value: Option<String>| match value {
        Some(value) if !value.is_empty() => output.line(format!("{name:<13}{value}")),
        _ => Ok(()),
    };
    let text = |value: &Option<String>| value.as_deref().map(plain);
    line("work order", Some(order.agent_work_order_id.clone()))?;
    line("status", Some(status(&order.status)))?;
    line("phase", text(&order.current_phase))?;
    line("repository", Some(plain(&order.repository_url)))?;
    line("request", Some(first_line(&order.user_request, 200)))?;
    line("issue", text(&order.github_issue_number))?;
    line("branch", text(&order.git_branch_name))?;
    line("base branch", text(&order.base_branch))?;
    line("pull request", text(&order.github_pull_request_url))?;
    line("waiting for", order.waiting_for.as_ref().map(|waiting| plain(&waiting.to_string())))?;
    line("error", text(&order.error_message))?;
    line("error class", text(&order.error_class))?;
    line("steps", Some(order.selected_commands.join(", ")))?;
    line("created", Some(time(order.created_at)))?;
    line("started", order.started_at.map(time))?;
    line("finished", order.finished_at.map(time))?;
    line("job", Some(job(order)))?;
    line("worker", worker(order))?;
    for usage in usage(order) {
        line("usage", Some(usage))?;
    }
    Ok(())
}

/// The stages of a cancel in the newest attempt.
fn print_cancel(story: &Story, output: &Output) -> anyhow::Result<()> {
    let Some(asked) = story.order.cancel_requested_at else { return Ok(()) };
    let since = |at: DateTime<Utc>| {
        let after = (at - asked).as_seconds_f64().max(0.0);
        format!("{} ({after:.1} s after)", time(at))
    };
    let last = story.attempts.last().filter(|last| last.ended_at.is_none_or(|end| end >= asked));
    let stage = |read: fn(&Attempt) -> Option<DateTime<Utc>>| last.and_then(read).map(since);
    let lines = [
        ("cancel asked", Some(time(asked))),
        ("cancel heard", stage(|attempt| attempt.cancel_acknowledged_at)),
        ("tree empty", stage(|attempt| attempt.tree_empty_at)),
        ("sandbox free", stage(|attempt| attempt.released_at)),
    ];
    for (name, value) in lines {
        if let Some(value) = value {
            output.line(format!("{name:<13}{value}"))?;
        }
    }
    Ok(())
}

fn job(order: &OrderDetail) -> String {
    format!(
        "{} in queue {}, attempt {} of {}, {} crashes, {} interruptions",
        order.job_id,
        order.queue,
        order.attempt,
        order.max_attempts,
        order.crash_count,
        order.interrupted_count
    )
}

/// What the agents consumed, and by model where there were several.
fn usage(order: &OrderDetail) -> Vec<String> {
    let whole = ModelUsage {
        input_tokens: tokens(order.total_input_tokens),
        output_tokens: tokens(order.total_output_tokens),
        cache_read_tokens: tokens(order.total_cache_read_tokens),
        cache_creation_5m_tokens: tokens(
            order.total_cache_creation_tokens - order.total_cache_creation_1h_tokens,
        ),
        cache_creation_1h_tokens: tokens(order.total_cache_creation_1h_tokens),
        cost_usd: order.total_cost_usd,
        estimated_usd: order.usage_by_model.total().estimated_usd,
    };
    if whole == ModelUsage::default() {
        return Vec::new();
    }
    let mut lines = vec![words(&whole)];
    if order.usage_by_model.models().count() > 1 {
        let of_model =
            |(model, usage): (&str, &ModelUsage)| format!("{}: {}", plain(model), words(usage));
        lines.extend(order.usage_by_model.models().map(of_model));
    }
    lines
}

fn tokens(column: i64) -> u64 {
    column.try_into().unwrap_or_default()
}

fn words(usage: &ModelUsage) -> String {
    let ModelUsage { input_tokens, output_tokens, cache_read_tokens, cost_usd, .. } = usage;
    let (minutes, hour) = (usage.cache_creation_5m_tokens, usage.cache_creation_1h_tokens);
    let estimated = match usage.estimated_usd {
        usd if usd > 0.0 => format!(", ${usd:.4} of it by estimate"),
        _ => String::new(),
    };
    format!(
        "{input_tokens} tokens in, {output_tokens} out, {cache_read_tokens} from the cache, \
         {minutes} into it for 5 min, {hour} for 1 h, ${cost_usd:.4}{estimated}"
    )
}

fn worker(order: &OrderDetail) -> Option<String> {
    let host = order.worker_hostname.as_deref()?;
    let pid = order.worker_pid?;
    let age = order.heartbeat_age_seconds.map(seconds)?;
    Some(format!("{} (pid {pid}), heartbeat {age} ago", plain(host)))
}

fn prompts(story: &Story) -> Vec<Vec<String>> {
    let row = |said: &Prompt| {
        let answered = said.answered_at.map_or_else(|| "-".to_owned(), time);
        vec![time(said.created_at), answered, first_line(&said.prompt, 100)]
    };
    story.prompts.iter().map(row).collect()
}

fn steps(story: &Story) -> Vec<Vec<String>> {
    let row = |step: &StepRun| {
        let result = match (step.superseded_at, step.success) {
            (Some(_), _) => "superseded".to_owned(),
            (None, true) => status("ok"),
            (None, false) => status("failed"),
        };
        vec![
            step.step_name.clone(),
            step.attempt.to_string(),
            result,
            seconds(step.duration_seconds),
            plain(&step.agent_name),
            step_cost(step),
            step.error_message.as_deref().map(|text| first_line(text, 60)).unwrap_or_default(),
        ]
    };
    story.steps.iter().map(row).collect()
}

/// What a step cost; `~` says that a part of it is an estimate.
fn step_cost(step: &StepRun) -> String {
    let mark = if step.usage_by_model.total().estimated_usd > 0.0 { "~" } else { "" };
    if step.cost_usd > 0.0 { format!("{mark}${:.4}", step.cost_usd) } else { "-".to_owned() }
}

fn attempts(story: &Story) -> Vec<Vec<String>> {
    let row = |attempt: &Attempt| {
        let worker = match (&attempt.worker_hostname, attempt.worker_pid) {
            (Some(host), Some(pid)) => format!("{} (pid {pid})", plain(host)),
            _ => attempt.worker_id.to_string(),
        };
        vec![
            attempt.epoch.to_string(),
            time(attempt.claimed_at),
            attempt.first_step.clone().unwrap_or_else(|| "-".to_owned()),
            attempt.outcome.as_deref().map_or_else(|| status("running"), status),
            worker,
            attempt.error_message.as_deref().map(|text| first_line(text, 60)).unwrap_or_default(),
        ]
    };
    story.attempts.iter().map(row).collect()
}

fn artifacts(story: &Story) -> Vec<Vec<String>> {
    let row = |artifact: &Artifact| {
        vec![
            artifact.artifact_type.clone(),
            artifact.step_name.clone().unwrap_or_else(|| "-".to_owned()),
            artifact.size_bytes.to_string(),
            artifact.path.as_deref().map(plain).unwrap_or_default(),
        ]
    };
    story.artifacts.iter().map(row).collect()
}
