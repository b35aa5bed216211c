//! How long a claim takes when much waits, when much has ended, and when a busy repository blocks
//! what stands first.

use std::time::Duration;

use anyhow::ensure;
use uuid::Uuid;

use super::{
    super::{Measurement, Progress, median, percentile},
    QueueBench,
    place::Place,
};
use crate::{
    clock::Clock,
    sql,
    store::{Claim, Claimed, Settlement, Store},
};

/// The repository whose only slot is taken.
const BUSY: &str = "busy";
/// Long enough that no lease ends during a run.
const LEASE: Duration = Duration::from_hours(1);

struct Bench<'a> {
    plan: &'a QueueBench,
    place: &'a Place,
    clock: &'a Clock,
    progress: Progress<'a>,
    store: Store,
    worker: Uuid,
}

/// The 99th percentile of the claim of one job, and of the floor's, on three depths and blocked.
pub async fn measure(
    plan: &QueueBench,
    place: &Place,
    clock: &Clock,
    progress: Progress<'_>,
) -> anyhow::Result<Vec<Measurement>> {
    let store = Store::new(place.pool.clone());
    let bench = Bench { plan, place, clock, progress, store, worker: Uuid::new_v4() };
    place.limit_repositories(2).await?;
    place.empty().await?;
    place.fill(plan.backlog / 1000).await?;
    let (shallow, shallow_floor) = bench.claims("1k waiting").await?;
    place.fill(plan.backlog / 10 - plan.backlog / 1000).await?;
    let (middle, middle_floor) = bench.claims("100k waiting").await?;
    (progress)("filling 1M waiting", 0, 2);
    place.fill(plan.backlog - plan.backlog / 10).await?;
    (progress)("filling 1M finished", 1, 2);
    place.fill_finished(plan.backlog).await?;
    let (deep, deep_floor) = bench.claims("1M waiting, 1M finished").await?;

    place.empty().await?;
    place.fill(plan.backlog / 1000).await?;
    bench.block().await?;
    place.fill_busy(plan.backlog / 10, BUSY).await?;
    let (blocked, blocked_floor) = bench.claims("100k blocked").await?;
    place.empty().await?;
    Ok(vec![
        Measurement::new("claim_p99_1k", "ms", shallow, shallow_floor),
        Measurement::new("claim_p99_100k", "ms", middle, middle_floor),
        Measurement::new("claim_p99_1m", "ms", deep, deep_floor),
        // The growth: the deepest beside the shallowest.
        Measurement::new("claim_growth_1m", "ms", deep, shallow),
        Measurement::new("claim_blocked_100k", "ms", blocked, blocked_floor),
    ])
}

impl Bench<'_> {
    /// Fills the one slot of the busy repository.
    async fn block(&self) -> anyhow::Result<()> {
        let repository = &self.place.pool;
        let add = sqlx::query_scalar(sql!("bench/add_job")).bind(BUSY).bind(i16::MAX);
        let id: i64 = add.fetch_one(repository).await?;
        let limit = sqlx::query(sql!("demo/set_limit")).bind(BUSY).bind(1);
        limit.execute(repository).await?;
        let claimed = self.claim().await?;
        ensure!(claimed.job_id == id, "job {} was claimed, not the blocking one", claimed.job_id);
        Ok(())
    }

    /// The median over the rounds of the 99th percentile of a claim, ours and the floor's. What was
    /// claimed is settled and replaced, so that the backlog stays as deep as it is.
    async fn claims(&self, what: &'static str) -> anyhow::Result<(f64, f64)> {
        self.place.settle_down().await?;
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for round in 0..=self.plan.rounds {
            (self.progress)(what, round, self.plan.rounds + 1);
            let (mut our_times, mut floor_times) = (Vec::new(), Vec::new());
            for number in 0..self.plan.claims {
                let start = self.clock.now();
                let job = self.claim().await?;
                our_times.push((self.clock.now() - start).as_secs_f64() * 1000.0);
                let done = Settlement::Succeeded(None);
                let settled = self.store.settle(&[(job.fence(), &done)]).await?;
                ensure!(settled.len() == 1, "job {} was not settled", job.job_id);
                let repository = format!("bench-{}", 1 + number % 50);
                let priority = i16::try_from(number % 5)?;
                let add = sqlx::query(sql!("bench/add_job")).bind(repository).bind(priority);
                add.execute(&self.place.pool).await?;

                let start = self.clock.now();
                let claim = sqlx::query_scalar(sql!("bench/floor_claim_one"));
                let id: i64 = claim.fetch_one(&self.place.pool).await?;
                floor_times.push((self.clock.now() - start).as_secs_f64() * 1000.0);
                let complete = sqlx::query(sql!("bench/floor_complete_one")).bind(id);
                complete.execute(&self.place.pool).await?;
                sqlx::query(sql!("bench/fill_floor")).bind(1_i64).execute(&self.place.pool).await?;
            }
            // The first round warms connections, plans and pages.
            if round > 0 {
                ours.push(percentile(&our_times, 0.99));
                floor.push(percentile(&floor_times, 0.99));
            }
        }
        Ok((median(&ours), median(&floor)))
    }

    /// One job, as a replica with one free slot asks for it.
    async fn claim(&self) -> anyhow::Result<Claimed> {
        let queues = &self.plan.timings.queues;
        let aging = self.plan.timings.priority_aging;
        let claim = self.store.claim(self.worker, queues, 1, LEASE, aging).await?;
        match claim {
            Claim::Jobs(jobs) if jobs.len() == 1 => {
                jobs.into_iter().next().ok_or_else(|| anyhow::anyhow!("no job"))
            }
            other => anyhow::bail!("a claim answered {other:?} while jobs wait"),
        }
    }
}
