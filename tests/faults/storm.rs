//! A run under faults at random: the orders, the plan that is carried out, the verdict.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::{task::JoinSet, time::sleep_until};

use crate::{
    agent::HONEST,
    orders::Orders,
    place::{Needs, Place},
    plan::{Shape, plan},
    report::Report,
    verdict::judge,
};

/// How long orders may take to end when the last fault is over: the longest that a statement waits
/// for an answer, and some.
const CALM: Duration = Duration::from_mins(4);
const LEASE: Duration = Duration::from_secs(3);

/// What is to be done.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How many faults to plan. A remote that is to fail counts when a push meets it: not all do.
    #[arg(long, env = "FAULTS", default_value_t = 1100)]
    pub faults: usize,
    /// Draws the same faults again; random when left out.
    #[arg(long, env = "SEED")]
    pub seed: Option<u64>,
    /// How many workers run.
    #[arg(long, env = "REPLICAS", default_value_t = 3)]
    pub replicas: usize,
    /// How many orders are open at any time.
    #[arg(long, env = "ORDERS", default_value_t = 8)]
    pub orders: usize,
    /// Average time from one fault to the next.
    #[arg(long, env = "EVERY", default_value = "1200ms", value_parser = humantime::parse_duration)]
    pub every: Duration,
    /// Workers reach Postgres through pgbouncer in transaction mode.
    #[arg(long)]
    pub pooler: bool,
    /// No agent fights back. Else some starve their shim or leave a process behind that wants to change what is
    /// being read.
    #[arg(long)]
    pub honest: bool,
    /// What holds agents: `AWO_FREEZER` of the workers. By default not by a cgroup, as in a container.
    #[arg(long, env = "FREEZER", default_value = "ptrace")]
    pub freezer: String,
    /// Where the report goes too: Markdown when it ends with .md, else JSON.
    #[arg(long, env = "REPORT")]
    pub report: Option<PathBuf>,
    /// Leave logs, database files and remotes behind.
    #[arg(long)]
    pub keep: bool,
}

/// The times of `docs/reliability.md`, shortened about tenfold.
pub fn short_times() -> Vec<(String, String)> {
    [
        ("AWO_LEASE", "3s"),
        ("AWO_SELF_FENCE", "2s"),
        ("AWO_HEARTBEAT", "400ms"),
        ("AWO_RESCUE_GRACE", "500ms"),
        ("AWO_POLL_MIN", "200ms"),
        ("AWO_POLL_MAX", "400ms"),
        ("AWO_POLL_IDLE", "2s"),
        ("AWO_DRAIN_GRACE", "500ms"),
        ("AWO_RETRY_BASE", "100ms"),
        ("AWO_RETRY_MAX", "1s"),
        ("AWO_MAX_CONCURRENT", "3"),
        ("AWO_LOG_FORMAT", "json"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Injects faults, waits for the orders, judges and reports. An error is a broken promise.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let seed = options.seed.unwrap_or_else(rand::random);
    eprintln!("faults: seed {seed}, {} faults, {} replicas", options.faults, options.replicas);
    let mut settings = short_times();
    settings.push(("AWO_FREEZER".to_owned(), options.freezer.clone()));
    let needs = Needs { replicas: options.replicas, remotes: 3, pooler: options.pooler, settings };
    let mut place = Arc::new(Place::prepare(needs).await?);
    if options.honest {
        std::fs::write(place.folder.join("notes").join(HONEST), "")?;
    }
    let result = storm(&place, &options, seed).await;
    let clean = matches!(&result, Ok(report) if report.verdict.is_clean());
    if options.keep || !clean {
        // Tasks that were given up may still hold it.
        match Arc::get_mut(&mut place) {
            Some(place) => eprintln!("faults: files kept in {}", place.keep_folder().display()),
            None => eprintln!("faults: the files could not be kept"),
        }
    }
    let report = result.with_context(|| format!("seed {seed}"))?;
    println!("{}", report.text());
    if let Some(file) = &options.report {
        report.write(file)?;
    }
    ensure!(clean, "broken promises (seed {seed}):\n{}", report.verdict.broken());
    Ok(())
}

async fn storm(place: &Arc<Place>, options: &Options, seed: u64) -> anyhow::Result<Report> {
    let shape = Shape {
        faults: options.faults,
        workers: options.replicas,
        remotes: place.remotes.len(),
        every: options.every,
        lease: LEASE,
        forever: options.faults > 200,
    };
    let began = Instant::now();
    for replica in &place.replicas {
        replica.start().await?;
    }
    let mut orders = Orders::default();
    let mut faults = JoinSet::new();
    let start = tokio::time::Instant::now();
    for planned in plan(seed, &shape) {
        let place = Arc::clone(place);
        faults.spawn(async move {
            sleep_until(start + planned.at).await;
            let done = place.inject(planned.fault).await;
            done.with_context(|| format!("{:?}", planned.fault))
        });
    }
    let remotes = place.remote_urls();
    let mut told = Instant::now();
    while !faults.is_empty() {
        tokio::select! {
            Some(ended) = faults.join_next() => ended??,
            () = tokio::time::sleep(Duration::from_millis(150)) => {
                for replica in &place.replicas {
                    replica.keep()?;
                }
                // Without a database there is nothing to order from.
                let look = orders.look_after(&place.pool, &remotes, options.orders);
                let looked = tokio::time::timeout(Duration::from_secs(2), look).await;
                if told.elapsed() > Duration::from_secs(15)
                    && let Ok(Ok(standing)) = looked
                {
                    told = Instant::now();
                    let injected: usize = place.counts().iter().sum();
                    eprintln!(
                        "faults: {:4.0} s, {injected} of {} faults, {} orders ended, {} open",
                        began.elapsed().as_secs_f64(), options.faults, standing.ended, standing.open
                    );
                }
            }
        }
    }
    tokio::select! {
        ended = orders.all_ended(&place.pool, CALM) => ended?,
        error = keep_all(place) => error?,
    }
    place.end_workers().await?;
    let verdict = judge(place, &orders).await?;
    let through = if options.pooler { "through pgbouncer, transaction mode" } else { "directly" };
    Report::of(place, seed, through, began.elapsed(), &orders, verdict).await
}

async fn keep_all(place: &Place) -> anyhow::Result<()> {
    loop {
        for replica in &place.replicas {
            replica.keep()?;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
