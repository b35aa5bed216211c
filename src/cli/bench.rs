//! `archon-awo bench`: measures this machine, each value beside the barest way to do the same.

use std::path::PathBuf;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

use super::output::Output;
use crate::{
    bench::{BenchReport, sandbox},
    clock::Clock,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// Sandboxes: making one cold, warm and after many were deleted, its disk, its deletion.
    Sandbox(SandboxArgs),
}

#[derive(Debug, clap::Args)]
struct SandboxArgs {
    /// Folder on the file system to measure; about 2 GiB are used in it and given back.
    #[arg(long, value_name = "PATH", default_value = ".")]
    folder: PathBuf,
    /// How often each thing is measured; the median counts.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Sandboxes made and deleted before the churned measurement.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    churn: u16,
}

pub(super) async fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let Subject::Sandbox(args) = args.subject;
    let folder = std::path::absolute(&args.folder)?;
    let mut plan = sandbox::SandboxBench::new(folder);
    plan.rounds = args.rounds.into();
    plan.churn = args.churn.into();
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
    let report = sandbox::run(&plan, &Clock::system(), &progress).await?;
    bar.finish_and_clear();
    if output.is_json() { output.document(&report) } else { print(&report, output) }
}

fn print(report: &BenchReport, output: &Output) -> anyhow::Result<()> {
    let machine = &report.machine;
    output.line(format!(
        "{}, {} cores, {} MiB, Linux {}, {}\n",
        machine.cpu, machine.cores, machine.memory_mib, machine.kernel, machine.file_system
    ))?;
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
