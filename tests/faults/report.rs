//! The report of a run: for people, for `docs/reliability.md`, and for programs.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use serde::Serialize;
use sqlx::PgPool;

use crate::{
    orders::Orders,
    place::Place,
    plan::KINDS,
    replica::{Killed, count_logged},
    verdict::Verdict,
};

/// A distribution of times, in seconds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Times {
    pub count: usize,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Times {
    pub fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        // The nearest rank, so that with few values the p99 is the worst of them.
        let rank = |hundredths: usize| {
            let place = (seconds.len() * hundredths).div_ceil(100).saturating_sub(1);
            seconds.get(place).copied().unwrap_or_default()
        };
        Self { count: seconds.len(), p50: rank(50), p99: rank(99), max: rank(100) }
    }

    pub fn words(&self) -> String {
        if self.count == 0 {
            return "none".to_owned();
        }
        let Self { count, p50, p99, max } = self;
        format!("p50 {p50:.1} s, p99 {p99:.1} s, longest {max:.1} s ({count})")
    }
}

/// Everything that is told about a run under faults.
#[derive(Debug, Serialize)]
pub struct Report {
    pub seed: u64,
    pub through: &'static str,
    pub replicas: usize,
    pub seconds: f64,
    pub faults: Vec<(&'static str, usize)>,
    pub orders: i64,
    pub completed: i64,
    pub cancelled: i64,
    pub claims: i64,
    pub rescues: i64,
    pub interruptions: i64,
    pub retries: i64,
    pub agent_runs: usize,
    pub ticks: u64,
    pub stale_writes_refused: usize,
    pub self_fences: usize,
    pub frozen_by_the_shim: usize,
    pub worker_starts: usize,
    pub ended_by_themselves: Vec<String>,
    pub requeue: Times,
    pub redispatch: Times,
    pub cancel: Times,
    pub verdict: Verdict,
}

impl Report {
    pub async fn of(
        place: &Place,
        seed: u64,
        through: &'static str,
        took: Duration,
        orders: &Orders,
        verdict: Verdict,
    ) -> anyhow::Result<Self> {
        let pool = &place.pool;
        let (completed, cancelled): (i64, i64) = sqlx::query_as(
            "select count(*) filter (where status = 'completed'),
                 count(*) filter (where status = 'cancelled') from agent_work_orders",
        )
        .fetch_one(pool)
        .await?;
        let (claims, rescues, interruptions, retries): (i64, i64, i64, i64) = sqlx::query_as(
            "select count(*), count(*) filter (where outcome = 'crashed'),
                 count(*) filter (where outcome = 'interrupted'),
                 count(*) filter (where outcome = 'retried')
             from awo.attempts a join awo.jobs j on j.id = a.job_id and j.kind = 'work_order'",
        )
        .fetch_one(pool)
        .await?;
        let words = ["stale epoch", "the lease is lost", "suspending", "\"missed\":true"];
        let [stale, lost, self_fences, frozen] = count_logged(&place.folder, words);
        let (mut worker_starts, mut ended_by_themselves) = (0, vec![]);
        let (mut requeue, mut redispatch) = (vec![], vec![]);
        for replica in &place.replicas {
            let process = replica.process().await;
            worker_starts += process.starts();
            ended_by_themselves.extend(process.unasked.iter().cloned());
            for killed in &process.killed {
                for times in redispatched(pool, *killed).await? {
                    requeue.push(times.0);
                    redispatch.extend(times.1);
                }
            }
        }
        let cancel: Vec<f64> = sqlx::query_scalar(
            "select extract(epoch from finished_at - cancel_requested_at)::double precision
             from awo.jobs where state = 'cancelled' and lease_epoch > 0",
        )
        .fetch_all(pool)
        .await?;
        let lives = place.witness.lives();
        Ok(Self {
            seed,
            through,
            replicas: place.replicas.len(),
            seconds: took.as_secs_f64(),
            faults: KINDS.into_iter().zip(place.counts()).collect(),
            orders: i64::try_from(orders.accepted.len())?,
            completed,
            cancelled,
            claims,
            rescues,
            interruptions,
            retries,
            agent_runs: lives.len(),
            ticks: lives.iter().map(|life| life.ticks).sum(),
            stale_writes_refused: stale + lost,
            self_fences,
            frozen_by_the_shim: frozen,
            worker_starts,
            ended_by_themselves,
            requeue: Times::of(requeue),
            redispatch: Times::of(redispatch),
            cancel: Times::of(cancel),
            verdict,
        })
    }

    /// As Markdown, which is also readable as it is.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "| {name} | {value} |");
        };
        row("fact", "value".to_owned());
        row("---", "---".to_owned());
        row("seed", self.seed.to_string());
        row("workers reach Postgres", self.through.to_owned());
        row("replicas", self.replicas.to_string());
        row("time", format!("{:.0} s", self.seconds));
        let sum: usize = self.faults.iter().map(|(_, count)| count).sum();
        row("**faults injected**", format!("**{sum}**"));
        for (kind, count) in &self.faults {
            row(kind, count.to_string());
        }
        let orders = format!(
            "{} ({} completed, {} cancelled on request)",
            self.orders, self.completed, self.cancelled
        );
        row("orders", orders);
        row("claims", self.claims.to_string());
        row("rescues of a dead worker's order", self.rescues.to_string());
        row("interrupted by a drain", self.interruptions.to_string());
        row("retried after a failure", self.retries.to_string());
        row(
            "agent runs seen by the witness",
            format!("{} ({} ticks)", self.agent_runs, self.ticks),
        );
        row("SIGKILL until its orders are queued again", self.requeue.words());
        row("SIGKILL to the next claim, waiting for a slot included", self.redispatch.words());
        row("cancel to its proven end", self.cancel.words());
        row("stale writes refused", self.stale_writes_refused.to_string());
        row("self-fences", self.self_fences.to_string());
        row("agents frozen by their shim alone", self.frozen_by_the_shim.to_string());
        row("worker processes started", self.worker_starts.to_string());
        row("workers that ended by themselves", self.ended_by_themselves.len().to_string());
        for (name, found) in self.verdict.all() {
            row(&format!("**{name}**"), format!("**{}**", found.len()));
        }
        text
    }

    /// Writes it as JSON, or as Markdown when the file's name ends with `.md`.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let markdown = file.extension().is_some_and(|extension| extension == "md");
        let text = if markdown { self.text() } else { serde_json::to_string_pretty(self)? + "\n" };
        Ok(fs::write(file, text)?)
    }
}

/// Seconds from the kill of a process until each order it had was queued again, and to its next
/// claim if there was one.
pub async fn redispatched(
    pool: &PgPool,
    killed: Killed,
) -> anyhow::Result<Vec<(f64, Option<f64>)>> {
    Ok(sqlx::query_as(
        "select extract(epoch from a.ended_at)::double precision - $2,
             extract(epoch from min(n.claimed_at))::double precision - $2
         from awo.attempts a
         join awo.jobs j on j.id = a.job_id and j.kind = 'work_order'
         join awo.workers w on w.worker_id = a.worker_id
         left join awo.attempts n on n.job_id = a.job_id and n.epoch > a.epoch
         where w.pid = $1 and a.outcome = 'crashed'
           and a.claimed_at <= to_timestamp($2) and a.ended_at >= to_timestamp($2)
         group by a.job_id, a.epoch",
    )
    .bind(i32::try_from(killed.pid)?)
    .bind(killed.at)
    .fetch_all(pool)
    .await?)
}
