//! `archon-awo pause` and `resume`: whether orders are taken from a queue.

use serde_json::json;

use super::{open_store, output::Output};
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The queue.
    #[arg(default_value = "default")]
    queue: String,
}

pub(super) async fn pause(args: &Args, config: &Config, output: &Output) -> anyhow::Result<()> {
    open_store(config).await?.pause_queue(&args.queue).await?;
    say(&args.queue, true, output)
}

pub(super) async fn resume(args: &Args, config: &Config, output: &Output) -> anyhow::Result<()> {
    open_store(config).await?.resume_queue(&args.queue).await?;
    say(&args.queue, false, output)
}

fn say(queue: &str, paused: bool, output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output.document(&json!({ "queue": queue, "paused": paused }));
    }
    let text = if paused {
        format!("queue {queue} is paused: running orders go on, no new one starts")
    } else {
        format!("queue {queue} is open")
    };
    output.line(text)?;
    Ok(())
}
