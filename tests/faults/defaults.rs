//! The promises that are about seconds, with the times that everybody has who sets none: how soon a
//! dead worker's order goes on, what a minute without Postgres costs, how soon a cancel is proven.

use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use sqlx::PgPool;
use tokio::time::sleep;

use crate::{
    orders::{Orders, order},
    place::{Needs, Place},
    plan::Fault,
    report::{Times, redispatched},
    verdict::judge,
    witness,
};

/// SIGKILL to the next claim, seconds.
const REDISPATCH: f64 = 45.0;
/// A cancel to its proven end, seconds.
const CANCEL: f64 = 15.0;
/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_mins(3);
const STEP: &str = "execute";

/// What is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Workers that are killed, all within a few seconds, each with an order.
    #[arg(long, env = "KILLS", default_value_t = 20)]
    pub kills: usize,
    /// Orders that run while Postgres is away.
    #[arg(long, default_value_t = 10)]
    pub runs: usize,
    /// How long it is away.
    #[arg(long, env = "OUTAGE", default_value = "60s", value_parser = humantime::parse_duration)]
    pub outage: Duration,
    /// Orders that are cancelled at once; every other agent is deaf to signals.
    #[arg(long, env = "CANCELS", default_value_t = 20)]
    pub cancels: usize,
    /// Where the report goes too, as Markdown.
    #[arg(long, env = "REPORT")]
    pub report: Option<PathBuf>,
}

/// Measures all three. An error is a promise that is not kept.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut text = "| promise, default times | measured |\n| --- | --- |\n".to_owned();
    let mut missed = Vec::new();
    let mut note = |promise: String, measured: String, kept: bool| {
        eprintln!("faults: {promise}: {measured}");
        let _ = writeln!(text, "| {promise} | {measured} |");
        if !kept {
            missed.push(promise);
        }
    };
    let times = kills(options.kills).await.context("kills")?;
    let promise =
        format!("SIGKILL of a worker to the next claim of its order: p99 at most {REDISPATCH} s");
    note(promise, times.words(), times.count == options.kills && times.p99 <= REDISPATCH);

    let frozen = outage(options.runs, options.outage).await.context("outage")?;
    let promise = format!(
        "{:?} without Postgres in the middle of {} runs: no step, attempt or crash",
        options.outage, options.runs
    );
    note(
        promise,
        format!("the same processes went on, {} after the server was back", frozen.words()),
        true,
    );

    let times = cancels(options.cancels).await.context("cancels")?;
    let promise = format!("cancel to the empty tree: p99 at most {CANCEL} s");
    note(promise, times.words(), times.count == options.cancels && times.p99 <= CANCEL);
    println!("{text}");
    if let Some(file) = &options.report {
        fs::write(file, &text)?;
    }
    ensure!(missed.is_empty(), "not kept: {missed:?}");
    Ok(())
}

/// A place whose agents wait in [`STEP`], with that many orders there.
struct Held {
    place: Place,
    orders: Orders,
}

impl Held {
    async fn new(replicas: usize, slots: usize, ids: Vec<String>) -> anyhow::Result<Self> {
        let settings =
            [("AWO_MAX_CONCURRENT", slots.to_string()), ("AWO_LOG_FORMAT", "json".to_owned())];
        let needs = Needs {
            replicas,
            // Two orders of a repository may run at once.
            remotes: ids.len().div_ceil(2),
            pooler: false,
            settings: settings.map(|(name, value)| (name.to_owned(), value)).into(),
        };
        let place = Place::prepare(needs).await?;
        fs::write(place.folder.join("notes").join(format!("hold-{STEP}")), "")?;
        let mut orders = Orders::default();
        for (number, id) in ids.into_iter().enumerate() {
            order(&place.pool, &id, &place.remotes[number / 2].url()).await?;
            orders.accepted.push(id);
        }
        for replica in &place.replicas {
            replica.start().await?;
        }
        let held = Self { place, orders };
        let wanted = held.orders.accepted.len();
        held.until("every agent waits", |held| held.runs().len() == wanted).await?;
        Ok(held)
    }

    /// The runs of [`STEP`] so far.
    fn runs(&self) -> Vec<witness::Life> {
        let lives = self.place.witness.lives();
        lives.into_iter().filter(|life| life.step == STEP).collect()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let began = Instant::now();
        while !holds(self) {
            ensure!(began.elapsed() < PATIENCE, "never: {what}");
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn let_go(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.place.folder.join("notes").join(format!("hold-{STEP}")))?)
    }

    /// Waits for the end of every order and judges as after a run under faults.
    async fn end(mut self) -> anyhow::Result<Orders> {
        self.orders.all_ended(&self.place.pool, PATIENCE).await?;
        self.place.end_workers().await?;
        let verdict = judge(&self.place, &self.orders).await?;
        let broken = verdict.broken();
        ensure!(broken.is_empty(), "broken promises:\n{broken}");
        Ok(self.orders)
    }
}

/// As many workers as orders die; as many others wait.
async fn kills(count: usize) -> anyhow::Result<Times> {
    eprintln!("faults: {count} workers are killed");
    let held = Held::new(count * 2, 1, (0..count).map(|n| format!("wo-k{n:03}")).collect()).await?;
    let place = &held.place;
    let busy: Vec<i32> = sqlx::query_scalar(
        "select w.pid from awo.leases l join awo.workers w on w.worker_id = l.worker_id
         join awo.jobs j on j.id = l.job_id and j.kind = 'work_order'",
    )
    .fetch_all(&place.pool)
    .await?;
    let mut killed = Vec::new();
    for replica in &place.replicas {
        let mut process = replica.process().await;
        let pid = process.id().and_then(|pid| i32::try_from(pid).ok());
        if pid.is_some_and(|pid| busy.contains(&pid)) {
            process.kill().await?;
            killed.extend(process.killed.iter().copied());
            // Spread over a heartbeat, so that every phase of it is met.
            sleep(Duration::from_secs(5) / u32::try_from(count)?).await;
        }
    }
    ensure!(killed.len() == count, "{} of {count} workers had an order", killed.len());
    held.until("every order runs again", |held| held.runs().len() == count * 2).await?;
    let mut seconds = Vec::new();
    for killed in killed {
        seconds.extend(redispatched(&place.pool, killed).await?.into_iter().filter_map(|t| t.1));
    }
    held.let_go()?;
    held.end().await?;
    Ok(Times::of(seconds))
}

/// Answers how long after the server's return each agent went on.
async fn outage(runs: usize, length: Duration) -> anyhow::Result<Times> {
    eprintln!("faults: Postgres is away for {length:?}");
    let held =
        Held::new(3, runs.div_ceil(2), (0..runs).map(|n| format!("wo-o{n:03}")).collect()).await?;
    held.place.inject(Fault::PostgresStopped { length }).await?;
    let back = witness::now();
    // Two ticks after that moment: one may have been under way.
    let goes_on = |life: &witness::Life| life.last > back + Duration::from_millis(100);
    let began = Instant::now();
    let mut waits: Vec<Option<f64>> = vec![None; runs];
    while waits.iter().any(Option::is_none) {
        ensure!(began.elapsed() < PATIENCE, "not every agent went on: {waits:?}");
        for (wait, life) in waits.iter_mut().zip(held.runs()) {
            if wait.is_none() && goes_on(&life) {
                *wait = Some(witness::now().saturating_sub(back).as_secs_f64());
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    ensure!(held.runs().len() == runs, "agents were started again: {:?}", held.runs());
    held.let_go()?;
    let pool = held.place.pool.clone();
    let spent = spent(&pool).await?;
    ensure!(spent.is_empty(), "something was spent while Postgres was away: {spent:?}");
    let orders = held.end().await?;
    ensure!(orders.accepted.len() == runs, "{} orders", orders.accepted.len());
    Ok(Times::of(waits.into_iter().flatten().collect()))
}

/// Orders that lost something.
async fn spent(pool: &PgPool) -> anyhow::Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "select concat_ws(' ', work_order_id, 'attempt', attempt, 'crashes', crash_count,
             'interruptions', interrupted_count, 'epoch', lease_epoch)
         from awo.jobs where kind = 'work_order'
           and (attempt, crash_count, interrupted_count, lease_epoch) <> (1, 0, 0, 1)",
    )
    .fetch_all(pool)
    .await?)
}

/// Every other agent is deaf to INT and TERM, and one in three has left a process of its own session.
async fn cancels(count: usize) -> anyhow::Result<Times> {
    eprintln!("faults: {count} orders are cancelled");
    let id = |n: usize| {
        let deaf = if n.is_multiple_of(2) { "-stubborn" } else { "" };
        let daemon = if n.is_multiple_of(3) { "-daemon" } else { "" };
        format!("wo-c{n:03}{deaf}{daemon}")
    };
    let mut held = Held::new(3, count.div_ceil(2), (0..count).map(id).collect()).await?;
    let pool = held.place.pool.clone();
    for id in &held.orders.accepted {
        let cancel = sqlx::query_scalar("select awo_cancel($1, 'not needed')").bind(id);
        let answer: String = cancel.fetch_one(&pool).await?;
        if answer != "requested" {
            bail!("{id} was not running: {answer}");
        }
        held.orders.cancelled.insert(id.clone());
    }
    held.orders.all_ended(&pool, PATIENCE).await?;
    let seconds = sqlx::query_scalar(
        "select extract(epoch from finished_at - cancel_requested_at)::double precision
         from awo.jobs where state = 'cancelled'",
    )
    .fetch_all(&pool)
    .await?;
    // Judged by the witness too: nothing may tick when an order is said to have ended.
    held.let_go()?;
    held.end().await?;
    Ok(Times::of(seconds))
}
