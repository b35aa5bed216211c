//! `archon-awo pause` and `resume`: whether orders are taken from a queue, or of a repository.

use serde_json::json;

use super::{
    open_store,
    output::{Output, plain},
};
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The queue.
    #[arg(default_value = "default", conflicts_with = "repository")]
    queue: String,
    /// A repository instead of a queue: its address or its key.
    #[arg(long, value_name = "URL")]
    repository: Option<String>,
}

pub(super) async fn pause(args: &Args, config: &Config, output: &Output) -> anyhow::Result<()> {
    let store = open_store(config).await?;
    match &args.repository {
        Some(repository) => store.pause_repository(repository).await?,
        None => store.pause_queue(&args.queue).await?,
    }
    say(args, true, output)
}

pub(super) async fn resume(args: &Args, config: &Config, output: &Output) -> anyhow::Result<()> {
    let store = open_store(config).await?;
    match &args.repository {
        Some(repository) => store.resume_repository(repository).await?,
        None => store.resume_queue(&args.queue).await?,
    }
    say(args, false, output)
}

fn say(args: &Args, paused: bool, output: &Output) -> anyhow::Result<()> {
    let (kind, name) = match &args.repository {
        Some(repository) => ("repository", repository),
        None => ("queue", &args.queue),
    };
    if output.is_json() {
        return output.document(&json!({ kind: name, "paused": paused }));
    }
    let name = plain(name);
    let text = if paused {
        format!("{kind} {name} is paused: running orders go on, no new one starts")
    } else {
        format!("{kind} {name} is open")
    };
    output.line(text)?;
    Ok(())
}
