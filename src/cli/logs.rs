//! `archon-awo logs`: the log of a work order, readable, raw or as JSON, to its end or as it grows.

use std::time::Duration;

use sqlx::types::Json;

use super::{
    log_view::LogView,
    open_store,
    output::{Output, first_line, tell},
};
use crate::{
    clock::Clock,
    config::Config,
    domain::{LogCursor, StepName, WaitingFor},
    exit::CommandError,
    shutdown::Shutdown,
    store::{LogChunk, Store},
};

/// Chunks read at once: a bound on memory, whatever the size of the log.
const PAGE: u32 = 200;
/// How often a growing log is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The work order.
    id: String,
    /// Go on until the order ends.
    #[arg(long, short)]
    follow: bool,
    /// Only what this step wrote.
    #[arg(long)]
    step: Option<StepName>,
    /// Only what follows the entry with this seq, as `--json` prints it.
    #[arg(long, value_name = "SEQ", default_value_t)]
    after: LogCursor,
    /// The bytes as the agent wrote them; on a terminal with their controls written out.
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

pub(super) async fn run(args: &Args, config: &Config, output: &Output) -> anyhow::Result<()> {
    let store = open_store(config).await?;
    if store.find_order(&args.id).await?.is_none() {
        return Err(CommandError::NoSuchOrder(args.id.clone()).into());
    }
    let clock = Clock::system();
    let shutdown = Shutdown::on_signals()?;
    let mut reader =
        Reader { args, output, after: args.after, view: LogView::new(output.redactor()) };
    let mut waiting = None;
    loop {
        // Asked before the log is read: what an ended order wrote is there by then.
        let ended = !args.follow || has_ended(&store, &args.id, &mut waiting).await?;
        reader.print_new(&store).await?;
        if ended {
            return reader.finish();
        }
        tokio::select! {
            () = clock.sleep(INTERVAL) => {}
            () = shutdown.soft.cancelled() => return Err(CommandError::Interrupted.into()),
        }
    }
}

/// Whether an order has ended. What it waits for is said when that changes, on standard error: it is no part
/// of the log.
async fn has_ended(store: &Store, id: &str, told: &mut Option<WaitingFor>) -> anyhow::Result<bool> {
    match store.order_progress(id).await {
        Ok(Some(progress)) => {
            let now = progress.waiting_for.map(|Json(waiting)| waiting);
            if now.as_ref().map(|waiting| &waiting.reason) != told.as_ref() {
                if let Some(waiting) = &now {
                    tell(&format!("waiting for {}", first_line(&waiting.to_string(), 300)));
                }
                *told = now.map(|waiting| waiting.reason);
            }
            Ok(!matches!(progress.status.as_str(), "pending" | "running"))
        }
        Ok(None) => Ok(true),
        Err(error) if error.is_transient() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

struct Reader<'a> {
    args: &'a Args,
    output: &'a Output,
    after: LogCursor,
    view: LogView,
}

impl Reader<'_> {
    async fn print_new(&mut self, store: &Store) -> anyhow::Result<()> {
        loop {
            let chunks =
                store.log_chunks(&self.args.id, self.after.seq(), self.args.step, PAGE).await;
            let chunks = match chunks {
                Ok(chunks) => chunks,
                // The next look begins where this one ended.
                Err(error) if self.args.follow && error.is_transient() => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let more = chunks.len() >= PAGE as usize;
            for chunk in &chunks {
                if self.after.advance(chunk.seq) {
                    self.print(chunk)?;
                }
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn print(&mut self, chunk: &LogChunk) -> anyhow::Result<()> {
        if self.args.raw {
            if chunk.stream != "event" {
                self.output.bytes(&chunk.data)?;
            }
            return Ok(());
        }
        if self.output.is_json() {
            return self.view.entries(chunk).iter().try_for_each(|e| self.output.json_line(e));
        }
        self.view.lines(chunk).iter().try_for_each(|line| Ok(self.output.line(line)?))
    }

    /// Prints what was held back because its line had not ended.
    fn finish(&mut self) -> anyhow::Result<()> {
        if self.output.is_json() {
            return self.view.last_entries().iter().try_for_each(|e| self.output.json_line(e));
        }
        self.view.last_lines().iter().try_for_each(|line| Ok(self.output.line(line)?))
    }
}
