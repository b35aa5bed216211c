//! `archon-awo worker`: runs orders and answers health checks until it is told to stop.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

use crate::{
    clock::Clock,
    config::Config,
    http::{self, HttpState, WorkerStatus},
    lease::LeaseKeeper,
    queue::Worker,
    shutdown::Shutdown,
    telemetry::Metrics,
};

pub(super) async fn run(config: Config, worker_id: Uuid, metrics: Metrics) -> anyhow::Result<()> {
    // Nobody but root may read the memory and the environment of this process: they hold secrets.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        warn!("cannot keep other processes out of this one's memory: {error}");
    }
    let clock = Clock::system();
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
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
    let feed = tokio::spawn(feed);
    let server = if config.http.enabled {
        let config = Arc::new(config);
        let listener = http::listen(&config).await?;
        let state = HttpState::new(worker.store().clone(), config, clock, metrics, status)
            .with_disk(worker.disk().state())
            .with_isolation(worker.isolation().clone());
        let stop = stop.clone();
        Some(tokio::spawn(async move {
            if let Err(error) = http::serve(listener, state, stop).await {
                error!("the HTTP server ended: {error}");
            }
        }))
    } else {
        None
    };

    let result = worker.run().await;
    stop.cancel();
    feed.abort();
    if let Some(server) = server {
        server.await.context("the HTTP server failed")?;
    }
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
        let last_heartbeat_ok = pulse.borrow_and_update().acknowledged;
        let running = keeper.held();
        metrics.slots(running as u64, slots.saturating_sub(running as u64));
        sender.send_replace(WorkerStatus {
            draining: shutdown.is_stopping(),
            last_heartbeat_ok,
            running,
        });
        tokio::select! {
            changed = pulse.changed() => if changed.is_err() { return },
            () = shutdown.soft.cancelled(), if !sender.borrow().draining => {}
        }
    }
}
