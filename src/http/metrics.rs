//! `/metrics`: the instruments in the text format of Prometheus.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{HttpState, recent::Recent};
use crate::{
    clock::Clock,
    store::{QueueDepth, Store, StoreError},
    telemetry::{FleetReading, Metrics},
};

/// Longest time a scrape waits for the database; without it the other instruments are shown.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a reading of the database counts.
const KEEP: Duration = Duration::from_secs(5);
/// How often the database is read for a collector that is pushed to.
const PUSH_INTERVAL: Duration = Duration::from_secs(15);

/// Reads the figures of the whole fleet when somebody looks.
#[derive(Debug)]
pub(super) struct Fleet {
    store: Store,
    metrics: Metrics,
    clock: Clock,
    read: Recent<()>,
    seen: Mutex<BTreeSet<String>>,
}

impl Fleet {
    /// Figures that name `queues` from the start, and every other queue once something waits.
    pub fn new(store: Store, metrics: Metrics, clock: Clock, queues: &[String]) -> Self {
        let read = Recent::new(clock.clone(), KEEP);
        let seen = Mutex::new(queues.iter().cloned().collect());
        Self { store, metrics, clock, read, seen }
    }

    async fn refresh(&self) {
        let show = async {
            let reading = tokio::select! {
                reading = self.reading() => reading.ok(),
                () = self.clock.sleep(PATIENCE) => None,
            };
            self.metrics.fleet(reading);
        };
        self.read.get(show).await;
    }

    async fn reading(&self) -> Result<FleetReading, StoreError> {
        let mut queues = self.store.queue_depth().await?;
        let workers = self.store.worker_counts().await?;
        let counts = self.store.fleet_counts().await?;
        let mut seen = self.seen.lock().await;
        // A queue that has emptied is no row any more: it is shown with zero.
        let gone = seen.iter().filter(|name| queues.iter().all(|depth| depth.queue != **name));
        let (ready, scheduled, oldest_wait_seconds) = (0, 0, 0.0);
        let empty = |queue: &String| {
            let queue = queue.clone();
            QueueDepth { queue, ready, scheduled, oldest_wait_seconds }
        };
        let empty: Vec<QueueDepth> = gone.map(empty).collect();
        queues.extend(empty);
        seen.extend(queues.iter().map(|depth| depth.queue.clone()));
        Ok(FleetReading { queues, workers, counts })
    }
}

/// Reads them now and then, until `stop`.
pub(super) async fn keep_fresh(fleet: Arc<Fleet>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        fleet.refresh().await;
        tokio::select! {
            () = fleet.clock.sleep(PUSH_INTERVAL) => {}
            () = stop.cancelled() => {}
        }
    }
}

pub(super) async fn metrics(State(state): State<HttpState>) -> Response {
    state.fleet.refresh().await;
    match state.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot render the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
