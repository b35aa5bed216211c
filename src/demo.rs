//! The main job on this machine alone: a private Postgres, a real git remote and worker replicas,
//! with no account and no key. `demo` runs orders and reports; `dev` leaves it running.

mod folder;
mod place;
mod postgres;
mod progress;
mod remote;
mod replicas;
mod report;
mod story;
mod summary;

use std::{fmt::Write as _, fs, path::Path, path::PathBuf};

use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{clock::Clock, config::Host, exit::CommandError};
pub(crate) use folder::Folder;
use place::Place;
use progress::Narrator;

/// Most orders a replica of the demo runs at once, so that it also runs on a small machine.
const MOST_SLOTS: u16 = 8;

/// Show the main job on this machine alone: a private Postgres, a real git remote, worker processes,
/// orders inserted by SQL, pull requests.
///
/// Needs git and the PostgreSQL server programs, and no account, key or container. Without Claude
/// Code and a key a scripted agent, which is not a model, does the work.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "the flags of a command")]
pub struct DemoArgs {
    /// Worker processes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub replicas: u16,
    /// Work orders to insert.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub orders: u16,
    /// Kill one replica with SIGKILL while it is inside `execute`.
    #[arg(long)]
    pub kill_one: bool,
    /// Use the scripted agent even where Claude Code and a key are present.
    #[arg(long)]
    pub scripted: bool,
    /// Keep the folder with repository, sandboxes and logs.
    #[arg(long)]
    pub keep: bool,
    /// Print the result as JSON on standard output, and the story on standard error.
    #[arg(skip)]
    pub json: bool,
}

/// Start what `demo` starts and leave it running until Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct DevArgs {
    /// Worker processes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub replicas: u16,
    /// Keep everything in this folder and continue there next time; without it the folder is
    /// temporary.
    #[arg(long, value_name = "PATH")]
    pub folder: Option<PathBuf>,
    /// Use the scripted agent even where Claude Code and a key are present.
    #[arg(long)]
    pub scripted: bool,
}

/// Runs orders from SQL to pull requests and reports what happened. Fails unless every order
/// completed and database and repository agree on how many there are.
pub async fn run(args: DemoArgs, host: &Host, clock: Clock) -> anyhow::Result<()> {
    if args.kill_one && args.replicas < 2 {
        let text = "--kill-one needs --replicas 2 or more: somebody must take over";
        return Err(CommandError::Usage(text.to_owned()).into());
    }
    let mut signals = Signals::listen()?;
    let mut narrator = Narrator::new(clock.now(), args.json);
    let folder = Folder::temporary("demo", args.keep)?;
    if args.keep {
        narrator.line(&format!("Everything is kept in {}", folder.path().display()));
    }
    let slots = args.orders.div_ceil(args.replicas).min(MOST_SLOTS);
    let wishes = place::Wishes { replicas: args.replicas, slots, scripted: args.scripted };
    let mut place = tokio::select! {
        place = Place::start(folder, wishes, host, &clock, &narrator) => place?,
        () = signals.received() => return Err(CommandError::Interrupted.into()),
    };
    let told = tokio::select! {
        told = story::tell(&mut place, &args, &clock, &mut narrator) => told,
        () = signals.received() => Err(CommandError::Interrupted.into()),
    };
    place.stop(&clock).await;
    let report = told?;
    report.print(args.json)?;
    if !report.problems.is_empty() {
        bail!("the demo did not end as it should: {}", report.problems.join("; "));
    }
    Ok(())
}

/// Starts the same surroundings and leaves them running until a signal.
pub async fn dev(args: DevArgs, host: &Host, clock: Clock) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let narrator = Narrator::new(clock.now(), false);
    let folder = match &args.folder {
        Some(path) => Folder::given(path)?,
        None => Folder::temporary("demo", false)?,
    };
    let wishes = place::Wishes { replicas: args.replicas, slots: 5, scripted: args.scripted };
    let mut place = tokio::select! {
        place = Place::start(folder, wishes, host, &clock, &narrator) => place?,
        () = signals.received() => return Ok(()),
    };
    narrator.line(&place.invitation());
    let ended = tokio::select! {
        ended = place.watch(&clock) => ended,
        () = signals.received() => Ok(()),
    };
    narrator.line("stopping");
    place.stop(&clock).await;
    ended
}

/// The signals that end a command which has processes to take down.
struct Signals([Signal; 3]);

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [first, second, third] = kinds.map(signal);
        let cannot = "cannot listen for signals";
        Ok(Self([first.context(cannot)?, second.context(cannot)?, third.context(cannot)?]))
    }

    async fn received(&mut self) {
        let [first, second, third] = &mut self.0;
        tokio::select! {
            _ = first.recv() => {}
            _ = second.recv() => {}
            _ = third.recv() => {}
        }
    }
}

/// The last lines of a log, for an error message.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let mut out = format!("its log {} ends:", log.display());
    for line in &lines[lines.len().saturating_sub(8)..] {
        // Writing to a string cannot fail.
        let _ = write!(out, "\n  {line}");
    }
    out
}
