//! The instruments, under names dashboards and alerts are written against.
//!
//! Labels are bounded: words of our own and names of queues, never ids, paths or messages.

use std::{sync::Arc, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter, MeterProvider},
};
use opentelemetry_sdk::{
    Resource,
    metrics::{SdkMeterProvider, exporter::PushMetricExporter},
};
use prometheus::{Registry, TextEncoder};

use super::{
    TelemetryError,
    fleet::{FleetGauges, FleetReading},
};
use crate::{
    disk::{Level, VolumeState},
    domain::{ModelUsage, StepName},
};

/// Seconds; from quick steps of the runner to agents that work for hours.
const STEP_BUCKETS: [f64; 14] = [
    1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 10_800.0,
    14_400.0,
];
/// Seconds; a claim is one statement.
const CLAIM_BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Records what happens. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    provider: SdkMeterProvider,
    registry: Registry,
    fleet: FleetGauges,
    claim_duration: Histogram<f64>,
    jobs_finished: Counter<u64>,
    step_duration: Histogram<f64>,
    rescues: Counter<u64>,
    stale_writes_refused: Counter<u64>,
    self_fences: Counter<u64>,
    cancels: Counter<u64>,
    heartbeat_failures: Counter<u64>,
    tokens: Counter<u64>,
    cost: Counter<f64>,
    running_orders: Gauge<u64>,
    free_slots: Gauge<u64>,
    history_deleted: Counter<u64>,
    disk_free: Gauge<u64>,
    disk_total: Gauge<u64>,
    disk_free_inodes: Gauge<u64>,
    disk_level: Gauge<u64>,
    disk_cleanups: Counter<u64>,
}

impl Metrics {
    /// Instruments that `/metrics` shows and, with an exporter, a collector receives.
    pub(super) fn new(
        resource: Resource,
        exporter: Option<impl PushMetricExporter>,
    ) -> Result<Self, TelemetryError> {
        let registry = Registry::new();
        // Names are written out in full below, so that both ways lead to the same ones.
        let prometheus = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_units()
            .without_counter_suffixes()
            .scope_info_enabled(false)
            .build()
            .map_err(|error| TelemetryError::Metrics(error.to_string()))?;
        let mut provider =
            SdkMeterProvider::builder().with_resource(resource).with_reader(prometheus);
        if let Some(exporter) = exporter {
            provider = provider.with_periodic_exporter(exporter);
        }
        let provider = provider.build();
        let meter = provider.meter("archon-awo");
        Ok(Self { inner: Arc::new(Inner::new(&meter, provider, registry)) })
    }

    /// Instruments that only `/metrics` shows, for tests and commands that set up no telemetry.
    pub fn local() -> Result<Self, TelemetryError> {
        Self::new(Resource::builder_empty().build(), None::<opentelemetry_otlp::MetricExporter>)
    }

    /// Everything in the text format of Prometheus.
    pub fn render(&self) -> Result<String, TelemetryError> {
        TextEncoder::new()
            .encode_to_string(&self.inner.registry.gather())
            .map_err(|error| TelemetryError::Metrics(error.to_string()))
    }

    /// Sends what is left to the collector.
    pub(super) fn shutdown(&self) {
        let _ = self.inner.provider.shutdown();
    }

    /// What was read from the database of the whole fleet, or that it could not be read.
    pub fn fleet(&self, reading: Option<FleetReading>) {
        self.inner.fleet.show(reading);
    }

    /// A claim statement took `duration`, whether it found work or not.
    pub fn claimed(&self, duration: Duration) {
        self.inner.claim_duration.record(duration.as_secs_f64(), &[]);
    }

    /// An attempt at a job ended as the database has recorded it, by whomever: `outcome` is one of the words of
    /// `awo.attempts.outcome`, `crashed` of those a dead worker left that run again.
    pub fn job_finished(&self, outcome: &str, class: Option<&str>) {
        let class = class.unwrap_or_default().to_owned();
        let labels =
            [KeyValue::new("outcome", outcome.to_owned()), KeyValue::new("error_class", class)];
        self.inner.jobs_finished.add(1, &labels);
        if outcome == "cancelled" {
            self.inner.cancels.add(1, &[]);
        }
    }

    /// A step ended. `outcome` is `succeeded`, `failed`, `cancelled` or `interrupted`.
    pub fn step_finished(&self, step: StepName, outcome: &'static str, duration: Duration) {
        let labels = [KeyValue::new("step", step.as_str()), KeyValue::new("outcome", outcome)];
        self.inner.step_duration.record(duration.as_secs_f64(), &labels);
    }

    /// Orders of a dead worker were given back to the queue.
    pub fn rescued(&self, orders: u64) {
        self.inner.rescues.add(orders, &[]);
    }

    /// Rows of a part of the history were deleted.
    pub fn history_deleted(&self, part: &'static str, rows: u64) {
        self.inner.history_deleted.add(rows, &[KeyValue::new("part", part)]);
    }

    /// How a volume stands.
    pub fn disk(&self, volume: &VolumeState) {
        let labels = [KeyValue::new("volume", volume.name)];
        if let Some(space) = &volume.space {
            self.inner.disk_free.record(space.free_bytes, &labels);
            self.inner.disk_total.record(space.total_bytes, &labels);
            if space.total_inodes > 0 {
                self.inner.disk_free_inodes.record(space.free_inodes, &labels);
            }
        }
        let level = match volume.level {
            Level::Ample => 0,
            Level::Low => 1,
            Level::Full => 2,
            Level::Closed => 3,
        };
        self.inner.disk_level.record(level, &labels);
    }

    /// A volume had so little room that the worker cleaned up at once.
    pub fn disk_cleanup(&self) {
        self.inner.disk_cleanups.add(1, &[]);
    }

    /// A write came too late: its order has another owner by now.
    pub fn stale_write_refused(&self) {
        self.inner.stale_writes_refused.add(1, &[]);
    }

    /// Agents were frozen because heartbeats were not acknowledged in time.
    pub fn self_fenced(&self) {
        self.inner.self_fences.add(1, &[]);
    }

    /// A heartbeat failed.
    pub fn heartbeat_failed(&self) {
        self.inner.heartbeat_failures.add(1, &[]);
    }

    /// What a run of an agent consumed, as it was counted in the database.
    pub fn agent_used(&self, usage: &ModelUsage) {
        let kinds = [
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
            ("cache_read", usage.cache_read_tokens),
            ("cache_creation_5m", usage.cache_creation_5m_tokens),
            ("cache_creation_1h", usage.cache_creation_1h_tokens),
        ];
        for (kind, count) in kinds {
            self.inner.tokens.add(count, &[KeyValue::new("kind", kind)]);
        }
        self.inner.cost.add(usage.cost_usd, &[]);
    }

    /// How many orders this worker runs, and how many more it could.
    pub fn slots(&self, running: u64, free: u64) {
        self.inner.running_orders.record(running, &[]);
        self.inner.free_slots.record(free, &[]);
    }
}

impl Inner {
    fn new(meter: &Meter, provider: SdkMeterProvider, registry: Registry) -> Self {
        let counter = |name, what| meter.u64_counter(name).with_description(what).build();
        let gauge = |name, what| meter.u64_gauge(name).with_description(what).build();
        let seconds = |name, what, buckets: &[f64]| {
            meter
                .f64_histogram(name)
                .with_description(what)
                .with_unit("s")
                .with_boundaries(buckets.to_vec())
                .build()
        };
        let fleet = FleetGauges::default();
        fleet.register(meter);
        let inner = Self {
            fleet,
            claim_duration: seconds(
                "awo_claim_duration_seconds",
                "Time of one claim statement",
                &CLAIM_BUCKETS,
            ),
            jobs_finished: counter(
                "awo_jobs_finished_total",
                "Attempts at jobs that ended, by outcome",
            ),
            step_duration: seconds(
                "awo_step_duration_seconds",
                "Time of one run of a step",
                &STEP_BUCKETS,
            ),
            rescues: counter("awo_rescues_total", "Orders of dead workers given back to the queue"),
            stale_writes_refused: counter(
                "awo_stale_writes_refused_total",
                "Writes refused because the order had another owner",
            ),
            self_fences: counter(
                "awo_self_fences_total",
                "Times agents were frozen for want of an acknowledged heartbeat",
            ),
            cancels: counter("awo_cancels_total", "Running orders cancelled"),
            heartbeat_failures: counter("awo_heartbeat_failures_total", "Heartbeats that failed"),
            tokens: counter("awo_tokens_total", "Tokens used by agents, by kind"),
            cost: meter
                .f64_counter("awo_cost_usd_total")
                .with_description("Money agents cost, in US dollars")
                .build(),
            running_orders: gauge("awo_running_orders", "Orders this worker runs"),
            free_slots: gauge("awo_free_slots", "Orders this worker could run besides"),
            history_deleted: counter("awo_history_deleted_total", "Old rows deleted, by part"),
            disk_free: gauge("awo_disk_free_bytes", "Free bytes of a volume of this worker"),
            disk_total: gauge("awo_disk_total_bytes", "Size of a volume of this worker"),
            disk_free_inodes: gauge("awo_disk_free_inodes", "Free inodes of a volume"),
            disk_level: gauge(
                "awo_disk_level",
                "0 with room, 1 below the soft mark, 2 below the hard mark, 3 closed to the worker",
            ),
            disk_cleanups: counter(
                "awo_disk_cleanups_total",
                "Times a worker cleaned up because a volume was below its hard mark",
            ),
            provider,
            registry,
        };
        // Counters are there from the start: an alert on their increase needs the zero before it.
        for counter in [
            &inner.rescues,
            &inner.stale_writes_refused,
            &inner.self_fences,
            &inner.cancels,
            &inner.heartbeat_failures,
            &inner.disk_cleanups,
        ] {
            counter.add(0, &[]);
        }
        inner.cost.add(0.0, &[]);
        inner
    }
}
