//! Jobs a second through the real backend, at 8 and at 64 slots.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    super::{Measurement, Progress, median},
    QueueBench, floor,
    lane::Replica,
    place::{Place, rate},
};
use crate::clock::Clock;

/// Slots of the two measurements, and their names.
const SLOTS: [(&str, usize); 2] = [("claim_complete_c8", 8), ("claim_complete_c64", 64)];

/// Our rounds and the floor's turn and turn about. Both are held against jobs that are claimed and
/// completed one by one; the batched floor stands beside them.
pub async fn measure(
    plan: &QueueBench,
    place: &Place,
    clock: &Clock,
    progress: Progress<'_>,
) -> anyhow::Result<Vec<Measurement>> {
    // As many as by default: a hundred slots in all, more than a replica has.
    place.limit_repositories(2).await?;
    let (mut single, mut batched) = (Vec::new(), Vec::new());
    let mut ours = [Vec::new(), Vec::new()];
    // One unmeasured round warms connections, plans and pages.
    for round in 0..=plan.rounds {
        (progress)("claim and complete", round, plan.rounds + 1);
        fill(plan, place).await?;
        let one = rate(plan.jobs, floor::one_by_one(&place.pool, clock).await?);
        fill(plan, place).await?;
        let many = rate(plan.jobs, floor::batched(&place.pool, clock, 64).await?);
        let mut rates = [0.0; 2];
        for ((_, slots), rate_of) in SLOTS.iter().zip(&mut rates) {
            fill(plan, place).await?;
            *rate_of = rate(plan.jobs, drained(plan, place, clock, *slots).await?);
        }
        if round > 0 {
            single.push(one);
            batched.push(many);
            ours.iter_mut().zip(rates).for_each(|(all, rate)| all.push(rate));
        }
    }
    place.empty().await?;
    let (single, batched) = (median(&single), median(&batched));
    let mut results: Vec<Measurement> = SLOTS
        .iter()
        .zip(&ours)
        .map(|((name, _), rates)| Measurement::new(name, "jobs/s", median(rates), single))
        .collect();
    let c64 = median(&ours[1]);
    results.push(Measurement::new("claim_complete_c64_batched", "jobs/s", c64, batched));
    Ok(results)
}

async fn fill(plan: &QueueBench, place: &Place) -> anyhow::Result<()> {
    place.empty().await?;
    place.fill(plan.jobs).await?;
    place.settle_down().await
}

/// The time from the start of a replica until the last job is settled.
async fn drained(
    plan: &QueueBench,
    place: &Place,
    clock: &Clock,
    slots: usize,
) -> anyhow::Result<Duration> {
    let (seen, jobs) = (AtomicUsize::new(0), plan.jobs);
    let over = CancellationToken::new();
    let last = over.clone();
    let started = Arc::new(move |_: &_| {
        if seen.fetch_add(1, Ordering::Relaxed) + 1 == jobs {
            last.cancel();
        }
    });
    let replica = Replica::start(plan, place, clock, slots, false, started).await?;
    let drain = replica.drain();
    let start = clock.now();
    let (ran, ()) = tokio::join!(replica.run(), async {
        over.cancelled().await;
        drain.cancel();
    });
    ran?;
    Ok(clock.now() - start)
}
