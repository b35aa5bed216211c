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
    store::{QueueDepth, Store},
    telemetry::Metrics,
};

/// Longest time a scrape waits for the database; without it the other instruments are shown.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a reading of the queue counts.
const KEEP: Duration = Duration::from_secs(5);
/// How often the queue is read for a collector that is pushed to.
const PUSH_INTERVAL: Duration = Duration::from_secs(15);

/// Reads the depth of the queues when somebody looks.
#[derive(Debug)]
pub(super) struct QueueGauges {
    store: Store,
    metrics: Metrics,
    clock: Clock,
    read: Recent<()>,
    seen: Mutex<BTreeSet<String>>,
}

impl QueueGauges {
    /// Gauges of `queues`, shown from the start, and of every other queue once something waits.
    pub fn new(store: Store, metrics: Metrics, clock: Clock, queues: &[String]) -> Self {
        let read = Recent::new(clock.clone(), KEEP);
        let seen = Mutex::new(queues.iter().cloned().collect());
        Self { store, metrics, clock, read, seen }
    }

    async fn refresh(&self) {
        self.read.get(self.read_depth()).await;
    }

    async fn read_depth(&self) {
        let depths = tokio::select! {
            depths = self.store.queue_depth() => depths,
            () = self.clock.sleep(PATIENCE) => return,
        };
        let Ok(depths) = depths else { return };
        let mut seen = self.seen.lock().await;
        // A queue that has emptied is no row any more: its gauge goes to zero.
        let mut gone = std::mem::take(&mut *seen);
        for depth in &depths {
            gone.remove(&depth.queue);
            self.metrics.queue_waits(depth);
        }
        for queue in &gone {
            let (ready, scheduled, oldest_wait_seconds) = (0, 0, 0.0);
            let queue = queue.clone();
            self.metrics.queue_waits(&QueueDepth { queue, ready, scheduled, oldest_wait_seconds });
        }
        *seen = gone;
        seen.extend(depths.into_iter().map(|depth| depth.queue));
    }
}

/// Reads the queues now and then, until `stop`.
pub(super) async fn keep_fresh(gauges: Arc<QueueGauges>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        gauges.refresh().await;
        tokio::select! {
            () = gauges.clock.sleep(PUSH_INTERVAL) => {}
            () = stop.cancelled() => {}
        }
    }
}

pub(super) async fn metrics(State(state): State<HttpState>) -> Response {
    state.gauges.refresh().await;
    match state.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot render the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
