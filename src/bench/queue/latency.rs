//! From the sending of an insert to the start of its job, on an idle replica that listens.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use sqlx::{ConnectOptions, PgConnection, postgres::PgListener};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    super::{Measurement, Progress, percentile},
    QueueBench,
    lane::Replica,
    place::Place,
};
use crate::{clock::Clock, sql, store::Claimed};

/// Slots of the idle replica.
const SLOTS: usize = 8;
/// Time between two jobs, so that each finds an idle replica.
const PAUSE: (Duration, Duration) = (Duration::from_millis(40), Duration::from_millis(90));
/// A job that was not picked up by then is an error, not a number.
const PATIENCE: Duration = Duration::from_secs(30);

/// Each pickup has a raw notification beside it, sent over the same kind of connection.
pub async fn measure(
    plan: &QueueBench,
    place: &Place,
    clock: &Clock,
    progress: Progress<'_>,
) -> anyhow::Result<Vec<Measurement>> {
    place.empty().await?;
    place.settle_down().await?;
    let (sender, started) = mpsc::unbounded_channel();
    let reading = clock.clone();
    let tell = Arc::new(move |job: &Claimed| {
        // Nobody listens any more when the samples are taken.
        let _ = sender.send((job.job_id, reading.now()));
    });
    let replica = Replica::start(plan, place, clock, SLOTS, true, tell).await?;
    let drain = replica.drain();
    let (ran, times) = tokio::join!(replica.run(), async {
        let times = samples(plan, place, clock, progress, started).await;
        drain.cancel();
        times
    });
    ran?;
    let Times { pickup, notification, enqueue } = times?;
    place.empty().await?;
    let share = |name, share, floor: &[f64]| {
        Measurement::new(name, "ms", percentile(&pickup, share), percentile(floor, share))
    };
    Ok(vec![
        share("pickup_p50", 0.5, &notification),
        share("pickup_p99", 0.99, &notification),
        share("pickup_p50_enqueue", 0.5, &enqueue),
    ])
}

/// Milliseconds from sending to start, or to being heard of.
#[derive(Default)]
struct Times {
    pickup: Vec<f64>,
    /// A notification alone.
    notification: Vec<f64>,
    /// A row of the barest queue with a notification: like the insert of a job it reaches the disk
    /// before anybody hears of it.
    enqueue: Vec<f64>,
}

type Started = mpsc::UnboundedReceiver<(i64, Instant)>;

/// Takes the samples, turn and turn about.
async fn samples(
    plan: &QueueBench,
    place: &Place,
    clock: &Clock,
    progress: Progress<'_>,
    mut started: Started,
) -> anyhow::Result<Times> {
    let mut sending = place.options()?.connect().await?;
    let mut listener = PgListener::connect_with(&place.pool).await?;
    listener.listen("awo_bench").await?;
    let mut times = Times::default();
    // The first tenth warms connections and plans.
    let warm_up = plan.pickups / 10 + 1;
    for sample in 0..warm_up + plan.pickups {
        (progress)("pickup", sample, warm_up + plan.pickups);
        clock.sleep(clock.between(PAUSE.0, PAUSE.1)).await;
        let sent = clock.now();
        let repository = format!("bench-{}", 1 + sample % 50);
        let add = sqlx::query_scalar(sql!("bench/add_job")).bind(repository).bind(0_i16);
        let id: i64 = add.fetch_one(&mut sending).await?;
        let heard = timeout(PATIENCE, started.recv()).await.context("a job was not picked up")?;
        let (job, at) = heard.context("the replica ended")?;
        ensure!(job == id, "job {job} was picked up in place of {id}");
        let pickup = at - sent;

        let word = sample.to_string();
        let notify = sqlx::query(sql!("bench/notify")).bind(word);
        let notification = heard_after(notify, &mut sending, &mut listener, clock).await?;
        let enqueue = sqlx::query(sql!("bench/floor_enqueue"));
        let enqueue = heard_after(enqueue, &mut sending, &mut listener, clock).await?;
        if sample >= warm_up {
            let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
            times.pickup.push(milliseconds(pickup));
            times.notification.push(milliseconds(notification));
            times.enqueue.push(milliseconds(enqueue));
        }
    }
    Ok(times)
}

type Statement = sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// The time from sending a statement, after a pause, until its notification arrives.
async fn heard_after(
    statement: Statement,
    sending: &mut PgConnection,
    listener: &mut PgListener,
    clock: &Clock,
) -> anyhow::Result<Duration> {
    clock.sleep(clock.between(PAUSE.0, PAUSE.1)).await;
    let sent = clock.now();
    let (done, heard) = tokio::join!(statement.execute(sending), async {
        let heard = timeout(PATIENCE, listener.recv()).await;
        heard.map(|heard| heard.map(|_| clock.now()))
    });
    done?;
    Ok(heard.context("a notification was lost")?? - sent)
}
