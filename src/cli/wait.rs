//! Follows an order to its end: a progress bar on a terminal, plain lines elsewhere.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use super::output::{Output, first_line, plain, status, tell};
use crate::{
    clock::Clock,
    exit::CommandError,
    shutdown::Shutdown,
    store::{OrderProgress, Store, StoreError},
};

/// How often the order is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Waits for the end of an order and says what it was; an error unless it completed.
pub(super) async fn report_end(store: &Store, id: &str, output: &Output) -> anyhow::Result<()> {
    if !output.is_json() {
        output.line(id)?;
    }
    let end = until_ended(store, id).await?;
    if output.is_json() {
        output.document(&store.find_order(id).await?)?;
    } else {
        let url = end.github_pull_request_url.as_deref().unwrap_or_default();
        output.line(format!("{} {url}", status(&end.status)).trim_end())?;
    }
    if end.status == "completed" {
        return Ok(());
    }
    let message = end.error_message.unwrap_or_else(|| "no reason was given".to_owned());
    Err(CommandError::OrderFailed { id: id.to_owned(), status: end.status, message }.into())
}

/// Waits for the end of an order. A database that is away for a while is waited for too.
pub(super) async fn until_ended(store: &Store, id: &str) -> anyhow::Result<OrderProgress> {
    let clock = Clock::system();
    let shutdown = Shutdown::on_signals()?;
    let view = View::new(id);
    let mut last = None;
    loop {
        match store.order_progress(id).await {
            Ok(Some(progress)) => {
                if last.as_ref() != Some(&progress) {
                    view.show(&progress);
                }
                if matches!(progress.status.as_str(), "completed" | "failed" | "cancelled") {
                    view.bar.finish_and_clear();
                    return Ok(progress);
                }
                last = Some(progress);
            }
            Ok(None) => return Err(CommandError::NoSuchOrder(id.to_owned()).into()),
            Err(error) if error.is_transient() => view.lost(&error),
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = clock.sleep(INTERVAL) => {}
            () = shutdown.soft.cancelled() => {
                view.bar.finish_and_clear();
                eprintln!("work order {id} goes on; `archon-awo cancel {id}` stops it");
                return Err(CommandError::Interrupted.into());
            }
        }
    }
}

struct View {
    bar: ProgressBar,
    terminal: bool,
}

impl View {
    fn new(id: &str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let template = "{prefix} [{bar:24}] {pos}/{len} {msg} {elapsed}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(id.to_owned());
        bar.enable_steady_tick(INTERVAL);
        Self { bar, terminal }
    }

    fn show(&self, progress: &OrderProgress) {
        let phase = progress.current_phase.as_deref().map(plain).unwrap_or_default();
        let what = match (progress.status.as_str(), &progress.waiting_for) {
            ("running", _) if !phase.is_empty() => phase,
            (status, Some(waiting)) => {
                format!("{status}, waiting for {}", first_line(&waiting.to_string(), 200))
            }
            (status, None) => status.to_owned(),
        };
        let (done, total) = (progress.steps_done, progress.steps_total);
        if self.terminal {
            self.bar.set_length(u64::try_from(total).unwrap_or_default());
            self.bar.set_position(u64::try_from(done).unwrap_or_default());
            self.bar.set_message(what);
        } else {
            tell(&format!("{done}/{total} {what}"));
        }
    }

    fn lost(&self, error: &StoreError) {
        if self.terminal {
            self.bar.set_message("waiting for the database");
        } else {
            tell(&format!("waiting for the database: {error}"));
        }
    }
}
