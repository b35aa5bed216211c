//! Placeholder of the queue: serves health checks and takes no orders. To be replaced.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    clock::Clock,
    config::Config,
    http::{self, HttpState, WorkerStatus},
    shutdown::Shutdown,
    store::Store,
    telemetry::Metrics,
};

/// Runs until told to stop.
pub async fn run_worker(config: Config, store: Store, metrics: Metrics) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let config = Arc::new(config);
    let (_status, worker) = watch::channel(WorkerStatus::default());
    if config.http.enabled {
        let listener = http::listen(&config).await?;
        let state = HttpState::new(store, config, Clock::system(), metrics, worker);
        http::serve(listener, state, shutdown.soft.clone()).await?;
    }
    shutdown.soft.cancelled().await;
    Ok(())
}
