//! A replica without orders: the real engine, claimer and settler, with jobs that do nothing.

use std::sync::Arc;

use anyhow::Context;
use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{QueueBench, place::Place};
use crate::{
    clock::Clock,
    lease::LeaseKeeper,
    queue::{Claimer, Engine, Lane, Notifications, Pace, Wake, run_lane},
    store::{Claimed, Settlement, Store, WorkerRecord},
    telemetry::Metrics,
};

/// Told of each job as its handler starts.
pub type Started = Arc<dyn Fn(&Claimed) + Send + Sync>;

/// A replica that has claimed nothing.
pub struct Replica {
    claimer: Arc<Claimer>,
    drain: CancellationToken,
    background: JoinSet<()>,
}

impl Replica {
    /// Registers it; it beats, and listens if asked to.
    pub async fn start(
        plan: &QueueBench,
        place: &Place,
        clock: &Clock,
        slots: usize,
        listens: bool,
        started: Started,
    ) -> anyhow::Result<Self> {
        let worker_id = Uuid::new_v4();
        let store = Store::new(place.pool.clone());
        let record = WorkerRecord {
            worker_id,
            hostname: "bench".to_owned(),
            pid: i32::try_from(std::process::id()).unwrap_or_default(),
            queues: vec!["default".to_owned()],
            max_concurrent: i32::try_from(slots)?,
            kinds: None,
        };
        store.register_worker(&record).await?;
        let (drain, metrics) = (CancellationToken::new(), Metrics::local()?);
        let keeper = LeaseKeeper::new(
            worker_id,
            plan.timings.clone(),
            clock.clone(),
            place.options()?,
            drain.clone(),
            CancellationToken::new(),
            metrics.clone(),
        );
        let timings = plan.timings.clone();
        let polls = Pace { min: timings.poll_min, max: timings.poll_max, idle: timings.poll_idle };
        let beating = Arc::clone(&keeper);
        let (engine_clock, engine_drain) = (clock.clone(), drain.clone());
        let engine =
            Engine::new(worker_id, store, engine_clock, metrics, timings, keeper, engine_drain);
        let handler = Arc::new(move |job: Claimed, _| {
            started(&job);
            async { Settlement::Succeeded(None) }.boxed()
        });
        let lane = Lane { queues: record.queues, slots, pace: polls, handler, gate: None };
        let claimer = Claimer::new(engine, lane);
        let mut background = JoinSet::new();
        let stop = drain.clone();
        if listens {
            let notifications = Notifications {
                database: place.pool.clone().into(),
                lanes: vec![Arc::clone(&claimer.wake)],
                // It fires none; this is for the listener to wake.
                schedules: Arc::new(Wake::new(Vec::new())),
                keeper: Arc::clone(&beating),
                clock: clock.clone(),
            };
            background.spawn(notifications.run(stop.clone()));
        }
        background.spawn(async move { beating.run(stop).await });
        Ok(Self { claimer, drain, background })
    }

    /// When this is cancelled the replica takes no more jobs.
    pub fn drain(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Runs jobs until it is drained and the last of them is settled.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let ran = run_lane(self.claimer).await;
        self.background.shutdown().await;
        ran.map_err(|error| anyhow::anyhow!("{error}")).context("the replica's loop ended")
    }
}
