//! `archon-awo enqueue`: orders work, and waits for its end when asked to.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::json;

use super::{open_store, output::Output, wait, words};
use crate::{
    config::Config,
    domain::{BranchName, RepositoryUrl, SandboxType, Steps, WorkOrderId},
    store::NewOrder,
    telemetry,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The repository: <https://host/owner/repository>, owner/repository on GitHub, or
    /// <file:///path> where that is allowed.
    #[arg(long, value_name = "URL", allow_hyphen_values = true)]
    repository_url: String,
    /// What the agent should do, in words; `-` reads it from standard input.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    request: String,
    /// The steps to run, separated by commas; the repository's default when left out.
    #[arg(long, value_name = "STEPS", value_delimiter = ',')]
    commands: Option<Vec<String>>,
    /// Orders of a higher priority run first.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i16,
    /// Not before this time (2030-01-31T09:00:00Z) or this long from now (90m).
    #[arg(long, value_name = "TIME", value_parser = start)]
    run_at: Option<Start>,
    /// Number of the GitHub issue that belongs to the request.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..1_000_000_000_000))]
    issue: Option<u64>,
    /// Id of the new work order; a random one when left out.
    #[arg(long)]
    id: Option<String>,
    /// While an order with this key is open, another one with it is that one.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// The branch to start from and to merge into; the repository's own when left out.
    #[arg(long, value_name = "BRANCH", allow_hyphen_values = true)]
    base_branch: Option<String>,
    /// `git_worktree`, which borrows from the repository's cache, or `git_branch`, which stands alone.
    #[arg(long, value_name = "TYPE")]
    sandbox_type: Option<String>,
    /// Show the progress and end with the order: exit code 0 when it completed, else 5.
    #[arg(long)]
    wait: bool,
}

/// When an order may start.
#[derive(Debug, Clone, Copy)]
enum Start {
    At(DateTime<Utc>),
    After(Duration),
}

fn start(text: &str) -> Result<Start, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(Start::At(time.to_utc()));
    }
    for format in ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, format) {
            return Ok(Start::At(time.and_utc()));
        }
    }
    crate::config::parse_duration(text).map(Start::After).ok_or_else(|| {
        "expected a time such as 2030-01-31T09:00:00Z (UTC without a zone), or a duration such as \
         90m"
        .to_owned()
    })
}

pub(super) async fn run(args: Args, config: &Config, output: &Output) -> anyhow::Result<()> {
    let wait = args.wait;
    let order = check(args, config).await?;
    let store = open_store(config).await?;
    let id = store.enqueue(&order).await?;
    if wait { wait::report_end(&store, &id, output).await } else { pending(&id, output) }
}

/// Says that an order waits.
pub(super) fn pending(id: &str, output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output.document(&json!({ "agent_work_order_id": id, "status": "pending" }));
    }
    output.line(id)?;
    Ok(())
}

/// Refuses what no worker could run, before the database is asked.
async fn check(args: Args, config: &Config) -> anyhow::Result<NewOrder> {
    let user_request = words::read(args.request, "user_request").await?;
    RepositoryUrl::parse(&args.repository_url, &config.remotes)?;
    let steps = args.commands.as_deref().map(trimmed).map(|names| Steps::parse(&names));
    let (run_at, delay) = match args.run_at {
        Some(Start::At(time)) => (Some(time), None),
        Some(Start::After(delay)) => (None, Some(delay.as_secs_f64())),
        None => (None, None),
    };
    Ok(NewOrder {
        repository_url: args.repository_url,
        user_request,
        steps: steps.transpose()?,
        github_issue_number: args.issue,
        priority: args.priority,
        run_at,
        delay_seconds: delay,
        idempotency_key: args.idempotency_key,
        id: args.id.map(|id| id.parse::<WorkOrderId>()).transpose()?,
        traceparent: traceparent(config),
        base_branch: args.base_branch.map(|name| name.parse::<BranchName>()).transpose()?,
        sandbox_type: args.sandbox_type.map(|name| name.parse::<SandboxType>()).transpose()?,
    })
}

/// The trace the order continues: this command's where it is sent somewhere, else the caller's.
fn traceparent(config: &Config) -> Option<String> {
    if config.telemetry.traces_endpoint.is_some() {
        telemetry::current_traceparent()
    } else {
        config.traceparent.clone()
    }
}

fn trimmed(names: &[String]) -> Vec<&str> {
    names.iter().map(|name| name.trim()).collect()
}
