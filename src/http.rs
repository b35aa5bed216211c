//! The HTTP server of a worker: health for orchestrators, metrics for Prometheus.

mod connections;
pub mod health;
mod metrics;
mod recent;

use std::{io, sync::Arc};

use axum::{Router, routing::get};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

pub use health::WorkerStatus;

use crate::{
    agent::Isolation, clock::Clock, config::Config, disk::DiskState, store::Store,
    telemetry::Metrics,
};
use health::Checks;
use metrics::Fleet;

/// What the routes need. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpState {
    config: Arc<Config>,
    clock: Clock,
    checks: Arc<Checks>,
    fleet: Arc<Fleet>,
    metrics: Metrics,
    worker: watch::Receiver<WorkerStatus>,
    disk: watch::Receiver<DiskState>,
    isolation: Option<Arc<Isolation>>,
}

impl HttpState {
    /// State over an open store; `worker` is fed by whoever runs the orders.
    pub fn new(
        store: Store,
        config: Arc<Config>,
        clock: Clock,
        metrics: Metrics,
        worker: watch::Receiver<WorkerStatus>,
    ) -> Self {
        Self {
            checks: Arc::new(Checks::new(store.clone(), config.clone(), clock.clone())),
            fleet: Arc::new(Fleet::new(
                store,
                metrics.clone(),
                clock.clone(),
                &config.queue.queues,
            )),
            config,
            clock,
            metrics,
            worker,
            disk: watch::Sender::default().subscribe(),
            isolation: None,
        }
    }

    /// The same, showing how far agents are shut in here.
    #[must_use]
    pub fn with_isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = Some(Arc::new(isolation));
        self
    }

    /// The same, showing how the volumes of the worker stand.
    #[must_use]
    pub fn with_disk(mut self, disk: watch::Receiver<DiskState>) -> Self {
        self.disk = disk;
        self
    }
}

/// Every route.
pub fn router(state: HttpState) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .with_state(state)
}

/// Opens the port of the settings; the error names the address.
pub async fn listen(config: &Config) -> io::Result<TcpListener> {
    let address = config.http.address();
    TcpListener::bind(address).await.map_err(|error| {
        let hint = "set ARCHON_AWO_PORT or AWO_BIND to a free one";
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}; {hint}"))
    })
}

/// Answers requests until `stop`; those begun by then are finished.
pub async fn serve(
    listener: TcpListener,
    state: HttpState,
    stop: CancellationToken,
) -> io::Result<()> {
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "answering health checks and metrics");
    }
    // A collector that is pushed to gets the figures of the fleet too, though nobody scrapes them.
    let pushed = state.config.telemetry.metrics_endpoint.is_some();
    let (fleet, until) = (state.fleet.clone(), stop.clone());
    let fresh = async move {
        if pushed {
            metrics::keep_fresh(fleet, until).await;
        }
    };
    let clock = state.clock.clone();
    let serving = connections::serve(listener, router(state), stop, clock);
    tokio::join!(serving, fresh);
    Ok(())
}
