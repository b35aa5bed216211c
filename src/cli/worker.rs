//! `archon-awo worker`: runs orders and answers health checks until it is told to stop.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use futures::{FutureExt, TryFutureExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::{
    clock::Clock,
    config::Config,
    http::{self, HttpState, WorkerStatus},
    lease::LeaseKeeper,
    queue::Worker,
    services::Services,
    shutdown::Shutdown,
    telemetry::Metrics,
};

/// How long requests that have begun may take when the worker has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

pub(super) async fn run(config: Config, worker_id: Uuid, metrics: Metrics) -> anyhow::Result<()> {
    // Nobody but root may read the memory and the environment of this process: they hold secrets.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        warn!("cannot keep other processes out of this one's memory: {error}");
    }
    Box::pin(serve(config, worker_id, metrics, Services::default())).await
}

/// Runs a worker until it is told to stop, or until one of its long-lived tasks, which are all started by
/// `services`, ends before its time.
pub async fn serve(
    config: Config,
    worker_id: Uuid,
    metrics: Metrics,
    mut services: Services,
) -> anyhow::Result<()> {
    let clock = Clock::system();
    let (shutdown, listening) = Shutdown::listen().context("cannot listen for signals")?;
    services.spawn("signal handler", shutdown.hard.clone(), listening.map(Ok));
    let worker = Worker::prepare(
        config.clone(),
        worker_id,
        metrics.clone(),
        clock.clone(),
        shutdown.clone(),
    )
    .await?;

    // The health of a draining worker is asked for until its last order has ended.
    let stop = CancellationToken::new();
    let (sender, status) = watch::channel(WorkerStatus::default());
    let slots = config.queue.max_concurrent;
    let feed = feed(Arc::clone(worker.keeper()), shutdown, metrics.clone(), slots.into(), sender);
    services.spawn("health report", stop.clone(), feed.map(Ok));
    if config.http.enabled {
        let config = Arc::new(config);
        let listener = http::listen(&config).await?;
        let state = HttpState::new(worker.store().clone(), config, clock, metrics, status)
            .with_disk(worker.disk().state())
            .with_isolation(worker.isolation().clone());
        let serving = http::serve(listener, state, stop.clone());
        services.spawn("HTTP server", stop.clone(), serving.map_err(Into::into));
    }
    let result = worker.run(&mut services).await;
    stop.cancel();
    services.finish(LAST_ANSWERS).await;
    result
}

/// Tells the health checks what the worker does, at every heartbeat.
async fn feed(
    keeper: Arc<LeaseKeeper>,
    shutdown: Shutdown,
    metrics: Metrics,
    slots: u64,
    sender: watch::Sender<WorkerStatus>,
) {
    let mut pulse = keeper.pulse();
    loop {
        let now = pulse.borrow_and_update().clone();
        let running = keeper.held();
        metrics.slots(running as u64, slots.saturating_sub(running as u64));
        sender.send_replace(WorkerStatus { draining: shutdown.is_stopping(), pulse: now, running });
        tokio::select! {
            changed = pulse.changed() => if changed.is_err() { return },
            () = shutdown.soft.cancelled(), if !sender.borrow().draining => {}
        }
    }
}
