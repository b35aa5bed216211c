//! `archon-awo bench`: measures this machine, each value beside the barest way to do the same.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Subcommand, value_parser};
use indicatif::{ProgressBar, ProgressStyle};

use super::output::Output;
use crate::{
    bench::{
        BenchReport,
        agent::{self, AgentBench},
        queue::{self, QueueBench},
        sandbox,
    },
    clock::Clock,
    config::{Config, Host},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// The queue: jobs a second, pickup, an idle replica, claims from a deep backlog.
    ///
    /// Makes a database of its own on the server of `DATABASE_URL`, and drops it.
    Queue(QueueArgs),
    /// Sandboxes: making one cold, warm and after many were deleted, its disk, its deletion.
    Sandbox(SandboxArgs),
    /// Agents: starting one shut in, and keeping secrets out of what it prints.
    Agent(AgentArgs),
}

#[derive(Debug, clap::Args)]
struct SandboxArgs {
    /// Folder on the file system to measure; about 2 GiB are used in it and given back.
    #[arg(long, value_name = "PATH", default_value = ".")]
    folder: PathBuf,
    /// How often each thing is measured; the median counts.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Sandboxes made and deleted before the churned measurement.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u16).range(0..=10_000))]
    churn: u16,
}

#[derive(Debug, clap::Args)]
struct AgentArgs {
    /// How often each thing is measured; the median counts.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = value_parser!(u16).range(1..=10_000))]
    rounds: u16,
    /// Processes that a busy agent starts one after the other, shut in and not.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = value_parser!(u32).range(1..=10_000_000))]
    starts: u32,
    /// How often the busy agent runs, shut in and not, turn and turn about.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u16).range(1..=1000))]
    load_rounds: u16,
    /// A command of yours to measure in the same way, such as a build. It starts in an empty folder.
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,
}

#[derive(Debug, clap::Args)]
struct QueueArgs {
    /// How often each thing is measured; the median counts.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Jobs in a round of throughput.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = value_parser!(u32).range(100..=1_000_000))]
    jobs: u32,
    /// Jobs whose pickup is timed.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = value_parser!(u16).range(1..=10_000))]
    pickups: u16,
    /// How long an idle worker is watched, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = value_parser!(u16).range(1..=3600))]
    idle: u16,
    /// Claims that are timed in each round of a backlog.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = value_parser!(u16).range(10..=10_000))]
    claims: u16,
    /// Rows of the deepest backlog; the others hold a tenth and a thousandth.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = value_parser!(u32).range(10_000..=10_000_000))]
    backlog: u32,
}

pub(super) async fn run(args: Args, host: &Host, output: &Output) -> anyhow::Result<()> {
    // Hidden by indicatif itself where standard error is not a terminal.
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("{msg:28} {wide_bar} {pos}/{len} {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let progress = |what: &'static str, done: usize, of: usize| {
        bar.set_message(what);
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    };
    let clock = Clock::system();
    let report = match args.subject {
        Subject::Sandbox(args) => {
            let mut plan =
                sandbox::SandboxBench::new(std::path::absolute(&args.folder)?, this_program()?);
            plan.rounds = args.rounds.into();
            plan.churn = args.churn.into();
            sandbox::run(&plan, &clock, &progress).await?
        }
        Subject::Agent(args) => {
            let mut plan = AgentBench::new(this_program()?);
            plan.rounds = args.rounds.into();
            plan.starts = usize::try_from(args.starts)?;
            plan.load_rounds = args.load_rounds.into();
            plan.command = args.command;
            agent::run(&plan, &clock, &progress).await?
        }
        Subject::Queue(args) => queue::run(&queue_plan(&args, host)?, &clock, &progress).await?,
    };
    bar.finish_and_clear();
    if output.is_json() { output.document(&report) } else { print(&report, output) }
}

fn this_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find the path of this program")
}

fn queue_plan(args: &QueueArgs, host: &Host) -> anyhow::Result<QueueBench> {
    let config = Config::load(host)?;
    let url = config.database.required_url()?.clone();
    let mut plan = QueueBench::new(url, config.queue, this_program()?, config.search_path);
    plan.rounds = args.rounds.into();
    plan.jobs = usize::try_from(args.jobs)?;
    plan.pickups = args.pickups.into();
    plan.idle = Duration::from_secs(args.idle.into());
    plan.claims = args.claims.into();
    plan.backlog = usize::try_from(args.backlog)?;
    Ok(plan)
}

fn print(report: &BenchReport, output: &Output) -> anyhow::Result<()> {
    let machine = &report.machine;
    output.line(format!(
        "{}, {} cores, {} MiB, Linux {}, {}",
        machine.cpu, machine.cores, machine.memory_mib, machine.kernel, machine.file_system
    ))?;
    if let Some(database) = &report.database {
        output.line(format!(
            "PostgreSQL {}, fsync {}, synchronous_commit {}, shared_buffers {}\n",
            database.version, database.fsync, database.synchronous_commit, database.shared_buffers
        ))?;
    }
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |n| format!("{n:.3}"));
    let rows: Vec<Vec<String>> = report
        .results
        .iter()
        .map(|row| {
            let unit = row.unit.to_owned();
            vec![
                row.name.to_owned(),
                number(Some(row.value)),
                unit,
                number(row.floor),
                number(row.ratio),
            ]
        })
        .collect();
    output.table(&["NAME", "VALUE", "UNIT", "FLOOR", "RATIO"], &rows)?;
    Ok(())
}
