//! `archon-awo gc`: takes the sandboxes of ended orders away, as the schedule does.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use console::user_attended_stderr;
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    open_store,
    output::{Output, plain, tell},
};
use crate::{
    archive::Archive,
    clock::Clock,
    config::Config,
    domain::Redactor,
    git::Git,
    maintenance::{Action, Item, SandboxPolicy, Sandboxes, Sweep, SweepReport, Urgency},
    shutdown::Shutdown,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only say what would go.
    #[arg(long)]
    dry_run: bool,
    /// Take sandboxes and files too whose orders this database never had.
    #[arg(long)]
    unknown: bool,
}

pub(super) async fn run(args: &Args, config: &Config, output: &Output) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
    let store = open_store(config).await?;
    let this_binary = std::env::current_exe().context("cannot find the path of this program")?;
    let git = Git::configured(config, this_binary, Redactor::new(config.secrets()));
    let policy = SandboxPolicy::new(config.retention.clone()).current(&store).await;
    let archive = config.archive.as_ref().map(Archive::open).transpose()?;
    let sandboxes = Sandboxes::new(config, store, git, archive, Clock::system());
    let sweep = Sweep {
        policy,
        history_days: config.history.orders,
        urgency: Urgency::Scheduled,
        unknown: args.unknown,
        dry_run: args.dry_run,
    };
    let bar = progress_bar();
    let done = AtomicU64::new(0);
    let each = |item: &Item, total: usize| {
        let count = done.fetch_add(1, Ordering::Relaxed) + 1;
        match &bar {
            Some(bar) => {
                bar.set_length(total as u64);
                bar.set_position(count);
            }
            None => tell(&format!("{count}/{total} {}", line(item))),
        }
    };
    let report = sandboxes.sweep(&sweep, &each, &shutdown.soft).await?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if output.is_json() { output.document(&report) } else { print(&report, output) }
}

/// A bar where a person watches; lines elsewhere.
fn progress_bar() -> Option<ProgressBar> {
    user_attended_stderr().then(|| {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} sandboxes, {eta} left");
        let bar = ProgressBar::new(0);
        style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
    })
}

fn line(item: &Item) -> String {
    let mut text = format!("{} {}", item.order, word(item.action));
    for (name, value) in [("work saved in", &item.saved), ("because", &item.reason)] {
        if let Some(value) = value {
            text = format!("{text}, {name} {}", plain(value));
        }
    }
    text
}

fn word(action: Action) -> &'static str {
    match action {
        Action::Removed => "removed",
        Action::WouldRemove => "would go",
        Action::Kept => "kept",
        Action::Busy => "busy",
        Action::Failed => "failed",
    }
}

fn print(report: &SweepReport, output: &Output) -> anyhow::Result<()> {
    let rows: Vec<Vec<String>> = report
        .items
        .iter()
        .map(|item| {
            let status = item.status.clone().unwrap_or_else(|| "unknown".to_owned());
            let why = item.reason.clone().or_else(|| item.saved.clone()).unwrap_or_default();
            vec![item.order.clone(), status, word(item.action).to_owned(), plain(&why)]
        })
        .collect();
    if !rows.is_empty() {
        output.table(&["ORDER", "STATUS", "SANDBOX", "WHY"], &rows)?;
    }
    for order in &report.order_folders {
        output.line(format!("{order}: its files went, for its history is deleted"))?;
    }
    for problem in &report.problems {
        output.line(plain(problem))?;
    }
    output.line(format!(
        "{} removed ({} files and folders), {} would go, {} kept, {} busy, {} failed",
        report.count(Action::Removed),
        report.entries(),
        report.count(Action::WouldRemove),
        report.count(Action::Kept),
        report.count(Action::Busy),
        report.count(Action::Failed),
    ))?;
    Ok(())
}
