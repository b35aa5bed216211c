//! Gauges of the whole fleet: read from the database, shown by every replica alike, and left out while the
//! database does not say.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::{KeyValue, metrics::Meter};

use crate::store::{FleetCounts, QueueDepth, WorkerCounts};

/// The values of an instrument with their labels.
type Values<T> = Vec<(Vec<KeyValue>, T)>;

/// One reading.
#[derive(Debug, Clone)]
pub struct FleetReading {
    /// What waits, by queue.
    pub queues: Vec<QueueDepth>,
    /// The workers of all hosts.
    pub workers: WorkerCounts,
    /// Everything else.
    pub counts: FleetCounts,
}

/// Holds the last reading for the instruments that show it. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct FleetGauges {
    last: Arc<Mutex<Option<FleetReading>>>,
}

impl FleetGauges {
    /// Shows `reading` from now on, or nothing.
    pub fn show(&self, reading: Option<FleetReading>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = reading;
    }

    /// Registers the instruments. They are asked whenever somebody collects: what is not in the reading is
    /// not shown, where a gauge that is set would keep its last value for ever.
    pub fn register(&self, meter: &Meter) {
        self.gauge(meter, "awo_queue_depth", "Jobs that could run now and wait", |reading| {
            let waits = |depth: &QueueDepth| (label("queue", &depth.queue), depth.ready);
            reading.queues.iter().map(waits).collect()
        });
        self.oldest_wait(meter);
        self.gauge(meter, "awo_workers", "Workers of all hosts, by state", |reading| {
            let WorkerCounts { alive, draining, dead, .. } = reading.workers;
            let states = [("alive", alive), ("draining", draining), ("dead", dead)];
            states.map(|(state, count)| (label("state", state), count)).into()
        });
        self.gauge(meter, "awo_stuck_jobs", "Jobs that need a person", |reading| {
            vec![(Vec::new(), reading.counts.stuck)]
        });
        let broken = "Promises that the last check, at most half an hour ago, found broken";
        self.gauge(meter, "awo_broken_promises", broken, |reading| {
            reading.counts.broken_promises.map(|count| (Vec::new(), count)).into_iter().collect()
        });
        let ended = "Orders that ended within the last hour, in whatever way";
        self.gauge(meter, "awo_orders_ended", ended, |reading| {
            let FleetCounts { completed, failed, cancelled, .. } = reading.counts;
            let ends = [("completed", completed), ("failed", failed), ("cancelled", cancelled)];
            ends.map(|(status, count)| (label("status", status), count)).into()
        });
    }

    fn gauge(
        &self,
        meter: &Meter,
        name: &'static str,
        what: &'static str,
        read: fn(&FleetReading) -> Values<i64>,
    ) {
        let gauges = self.clone();
        let observe = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
            for (labels, count) in gauges.values(read) {
                observer.observe(u64::try_from(count).unwrap_or_default(), &labels);
            }
        };
        meter.u64_observable_gauge(name).with_description(what).with_callback(observe).build();
    }

    fn oldest_wait(&self, meter: &Meter) {
        let gauges = self.clone();
        let read = |reading: &FleetReading| {
            let waits =
                |depth: &QueueDepth| (label("queue", &depth.queue), depth.oldest_wait_seconds);
            reading.queues.iter().map(waits).collect()
        };
        meter
            .f64_observable_gauge("awo_queue_oldest_wait_seconds")
            .with_description("How long the oldest ready job has waited")
            .with_unit("s")
            .with_callback(move |observer| {
                for (labels, seconds) in gauges.values(read) {
                    observer.observe(seconds, &labels);
                }
            })
            .build();
    }

    fn values<T>(&self, read: impl Fn(&FleetReading) -> Values<T>) -> Values<T> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map(read).unwrap_or_default()
    }
}

fn label(name: &'static str, value: &str) -> Vec<KeyValue> {
    vec![KeyValue::new(name, value.to_owned())]
}
