//! `archon-awo enqueue`: orders work, and waits for its end when asked to.

use std::{io::Read, time::Duration};

use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::json;

use super::{
    open_store,
    output::{Output, status},
    wait,
};
use crate::{
    config::Config,
    domain::{RepositoryUrl, Steps, WorkOrderId},
    exit::CommandError,
    store::NewOrder,
    telemetry,
};

/// Longest request, in bytes: it goes into a prompt as a whole.
const LONGEST_REQUEST: u64 = 256 * 1024;

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
    if !wait {
        if output.is_json() {
            return output.document(&json!({ "agent_work_order_id": id, "status": "pending" }));
        }
        output.line(&id)?;
        return Ok(());
    }
    if !output.is_json() {
        output.line(&id)?;
    }
    let end = wait::until_ended(&store, &id).await?;
    if output.is_json() {
        output.document(&store.find_order(&id).await?)?;
    } else {
        let url = end.github_pull_request_url.as_deref().unwrap_or_default();
        output.line(format!("{} {url}", status(&end.status)).trim_end())?;
    }
    if end.status == "completed" {
        return Ok(());
    }
    let message = end.error_message.unwrap_or_else(|| "no reason was given".to_owned());
    Err(CommandError::OrderFailed { id, status: end.status, message }.into())
}

/// Refuses what no worker could run, before the database is asked.
async fn check(args: Args, config: &Config) -> anyhow::Result<NewOrder> {
    let user_request = request(args.request).await?;
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

fn standard_input() -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells that there is more.
    std::io::stdin().lock().take(LONGEST_REQUEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

async fn request(argument: String) -> anyhow::Result<String> {
    let text = if argument == "-" {
        let bytes = tokio::task::spawn_blocking(standard_input).await??;
        String::from_utf8(bytes)
            .map_err(|_| CommandError::Usage("user_request is not text in UTF-8".to_owned()))?
    } else {
        argument
    };
    let refuse = |reason: &str| Err(CommandError::Usage(format!("user_request {reason}")).into());
    if text.trim().is_empty() {
        return refuse("is empty: expected what the agent should do, in words");
    }
    if text.len() as u64 > LONGEST_REQUEST {
        return refuse("is longer than 256 KiB: expected a shorter one, with details in files");
    }
    if text.contains('\0') {
        return refuse("contains a NUL character: remove it");
    }
    Ok(text)
}
