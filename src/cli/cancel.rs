//! `archon-awo cancel`: stops a work order, and waits for the proof when asked to.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;

use super::{
    open_store,
    output::{Output, plain, tell},
};
use crate::{
    clock::Clock,
    config::Config,
    exit::CommandError,
    shutdown::Shutdown,
    store::{Cancellation, Store},
};

/// How often the cancel is looked at.
const INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The work order.
    id: String,
    /// Why, for whoever reads it later.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Wait until no process of it is left and its sandbox is free.
    #[arg(long)]
    wait: bool,
}

/// The proof as a document.
#[derive(Debug, Serialize)]
struct Proven<'a> {
    agent_work_order_id: &'a str,
    result: &'a str,
    #[serde(flatten)]
    cancellation: &'a Cancellation,
}

pub(super) async fn run(args: &Args, config: &Config, output: &Output) -> anyhow::Result<()> {
    let id = &args.id;
    let store = open_store(config).await?;
    let answer = store.cancel(id, args.reason.as_deref()).await?;
    if args.wait {
        let cancellation = until_proven(&store, id, output).await?;
        if output.is_json() {
            let result = answer.as_str();
            let cancellation = &cancellation;
            output.document(&Proven { agent_work_order_id: id, result, cancellation })?;
        }
        return verdict(id, &cancellation, output);
    }
    if output.is_json() {
        return output.document(&json!({ "agent_work_order_id": id, "result": answer }));
    }
    output.line(match answer.as_str() {
        "cancelled" => format!("{id} is cancelled"),
        "requested" => format!("{id} is running: its worker was told to stop"),
        ended => format!("{id} has ended already ({ended}): nothing was done"),
    })?;
    Ok(())
}

/// Waits for the end of the order, showing each stage as it is reached. A database that is away for
/// a while is waited for too.
async fn until_proven(store: &Store, id: &str, output: &Output) -> anyhow::Result<Cancellation> {
    let clock = Clock::system();
    let shutdown = Shutdown::on_signals()?;
    let mut shown = 0;
    loop {
        match store.cancellation(id).await {
            Ok(Some(now)) => {
                let reached = stages(&now);
                if !output.is_json() {
                    for line in reached.iter().skip(shown) {
                        output.line(line)?;
                    }
                }
                shown = shown.max(reached.len());
                if matches!(now.status.as_str(), "completed" | "failed" | "cancelled") {
                    return Ok(now);
                }
            }
            Ok(None) => return Err(CommandError::NoSuchOrder(id.to_owned()).into()),
            Err(error) if error.is_transient() => {
                tell(&format!("waiting for the database: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = clock.sleep(INTERVAL) => {}
            () = shutdown.soft.cancelled() => {
                eprintln!("work order {id} is cancelled all the same");
                return Err(CommandError::Interrupted.into());
            }
        }
    }
}

/// The stages that were reached, in their order, up to the first that was not.
fn stages(now: &Cancellation) -> Vec<String> {
    let line = |at: Option<DateTime<Utc>>, seconds: Option<f64>, words: &str| {
        at.map(|_| format!("{:>6.1} s  {words}", seconds.unwrap_or_default()))
    };
    [
        line(now.requested_at, None, "requested"),
        line(now.acknowledged_at, now.acknowledged_seconds, "acknowledged by its worker"),
        line(now.tree_empty_at, now.tree_empty_seconds, "no process is left"),
        line(now.released_at, now.released_seconds, "the sandbox is free"),
    ]
    .into_iter()
    .map_while(|stage| stage)
    .collect()
}

fn verdict(id: &str, now: &Cancellation, output: &Output) -> anyhow::Result<()> {
    if now.status != "cancelled" {
        let (id, status) = (id.to_owned(), plain(&now.status));
        return Err(CommandError::NotCancelled { id, status }.into());
    }
    if now.tree_empty_at.is_none() || now.released_at.is_none() {
        return Err(CommandError::NotProven(id.to_owned()).into());
    }
    if output.is_json() { Ok(()) } else { Ok(output.line(format!("{id} is cancelled"))?) }
}
