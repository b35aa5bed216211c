//! What the queue costs: jobs a second, time to pickup, an idle replica, claims from a deep backlog,
//! each beside the barest statements that do the same over the same connections.

mod backlog;
mod floor;
mod idle;
mod lane;
mod latency;
mod place;
mod throughput;
mod wire;

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;

use super::{BenchReport, Machine, Progress};
use crate::{clock::Clock, config::QueueConfig};
use place::Place;

/// What to measure with.
#[derive(Debug, Clone)]
pub struct QueueBench {
    /// A server on which databases may be created; one is made for the run and dropped after it.
    pub url: SecretString,
    /// The times of the replica that is measured.
    pub timings: QueueConfig,
    /// This program, started once as an idle worker.
    pub program: PathBuf,
    /// Where programs are looked up.
    pub search_path: String,
    /// Folder for what that worker writes.
    pub folder: PathBuf,
    /// Rounds per value; the median counts.
    pub rounds: usize,
    /// Jobs in a round of throughput.
    pub jobs: usize,
    /// Jobs whose pickup is timed.
    pub pickups: usize,
    /// How long an idle worker is watched.
    pub idle: Duration,
    /// Claims that are timed in each round of a backlog.
    pub claims: usize,
    /// Rows of the deepest backlog, and of the finished jobs beside it; the others hold a tenth and
    /// a thousandth.
    pub backlog: usize,
}

impl QueueBench {
    /// Five rounds of 10,000 jobs, 300 pickups, a minute of idling, a backlog of a million.
    pub fn new(
        url: SecretString,
        timings: QueueConfig,
        program: PathBuf,
        search_path: String,
    ) -> Self {
        Self {
            url,
            timings,
            program,
            search_path,
            folder: std::env::temp_dir(),
            rounds: 5,
            jobs: 10_000,
            pickups: 300,
            idle: Duration::from_mins(1),
            claims: 200,
            backlog: 1_000_000,
        }
    }
}

/// Runs every measurement; takes about four minutes with the default sizes.
pub async fn run(
    plan: &QueueBench,
    clock: &Clock,
    progress: Progress<'_>,
) -> anyhow::Result<BenchReport> {
    let place = Place::make(plan).await?;
    let measured = measure(plan, &place, clock, progress).await;
    place.remove().await?;
    measured
}

async fn measure(
    plan: &QueueBench,
    place: &Place,
    clock: &Clock,
    progress: Progress<'_>,
) -> anyhow::Result<BenchReport> {
    let mut results = throughput::measure(plan, place, clock, progress).await?;
    results.extend(latency::measure(plan, place, clock, progress).await?);
    results.extend(idle::measure(plan, place, clock, progress).await?);
    results.extend(backlog::measure(plan, place, clock, progress).await?);
    let machine = Machine::here(&plan.folder);
    Ok(BenchReport { machine, database: Some(place.server().await?), results })
}
