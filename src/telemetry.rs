//! Logs, traces and metrics of the process: set up once, flushed on every way out.
//!
//! Without a collector spans still get their ids, so that every log line names the trace of its
//! work order; nothing is sent then.

mod fleet;
mod logs;
pub mod metrics;
mod otlp;
mod propagation;

use std::time::Duration;

use opentelemetry::{Key, KeyValue, trace::TracerProvider as _};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt, util::SubscriberInitExt};
use uuid::Uuid;

pub use fleet::FleetReading;
pub use logs::Audience;
pub use metrics::Metrics;
pub use propagation::{current_traceparent, link_or_parent};

use crate::{config::Config, domain::Redactor};

/// Why logs, traces or metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A collector that cannot be spoken to.
    #[error("cannot send {signal} to {endpoint}: {reason}")]
    Exporter {
        /// `traces` or `metrics`.
        signal: &'static str,
        /// The collector's address.
        endpoint: String,
        /// What the exporter said.
        reason: String,
    },
    /// Two instruments of one name, or a second set-up.
    #[error("cannot set up metrics: {0}")]
    Metrics(String),
}

/// Running telemetry. Call [`Telemetry::shutdown`] on every way out, or the last spans are lost.
#[derive(Debug)]
pub struct Telemetry {
    tracers: SdkTracerProvider,
    metrics: Metrics,
}

/// Longest time to send what is left: orchestrators do not wait for long.
const LAST_EXPORT: Duration = Duration::from_secs(5);

/// Sets up the log for `audience`, and traces and metrics; needs a running tokio runtime. What a replica sends
/// names it by `instance`.
///
/// Call it once per process.
pub fn init(
    config: &Config,
    audience: Audience,
    instance: Option<Uuid>,
) -> Result<Telemetry, TelemetryError> {
    let settings = &config.telemetry;
    let redactor = Redactor::new(config.secrets());
    let resource = resource(&settings.service_name, instance);
    let mut tracers = SdkTracerProvider::builder().with_resource(resource.clone());
    if let Some(endpoint) = &settings.traces_endpoint {
        let exporter = otlp::span_exporter(settings, endpoint, redactor.clone())?;
        tracers = tracers.with_batch_exporter(exporter);
    }
    let tracers = tracers.build();
    let metric_exporter = match &settings.metrics_endpoint {
        Some(endpoint) => Some(otlp::metric_exporter(settings, endpoint)?),
        None => None,
    };
    let metrics = Metrics::new(resource, metric_exporter)?;

    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let filter = match audience {
        Audience::Service => EnvFilter::new(&settings.log_filter),
        // What a command has to say it prints; its log is for when something is odd.
        Audience::Person => EnvFilter::new("warn"),
    };
    let log = logs::layer(settings.log_format, audience, redactor);
    let spans =
        tracing_opentelemetry::layer().with_tracer(tracers.tracer("archon-awo")).with_filter(
            // Spans of libraries (hyper, h2) would drown ours, and those of the exporter feed it.
            EnvFilter::new("off,archon_awo=info"),
        );
    // A second set-up (tests in one process) keeps the first.
    let _ = tracing_subscriber::registry().with(spans).with(log.with_filter(filter)).try_init();
    if audience == Audience::Service {
        for warning in config.warnings.iter().chain(&config.weak_secrets()) {
            tracing::warn!("{warning}");
        }
    }
    Ok(Telemetry { tracers, metrics })
}

/// Two replicas that send the same would write one series, each over the other's numbers.
fn resource(service_name: &str, instance: Option<Uuid>) -> Resource {
    const INSTANCE: &str = "service.instance.id";
    // With what OTEL_RESOURCE_ATTRIBUTES says.
    let found = Resource::builder().build();
    let mut resource = Resource::builder()
        .with_service_name(service_name.to_owned())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if let Some(instance) = instance.filter(|_| found.get(&Key::new(INSTANCE)).is_none()) {
        resource = resource.with_attribute(KeyValue::new(INSTANCE, instance.to_string()));
    }
    resource.build()
}

impl Telemetry {
    /// The instruments.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Sends what is left, traces and metrics side by side. Takes 5 s at most, whatever a collector does.
    pub async fn shutdown(self) {
        let Self { tracers, metrics } = self;
        // The exporters run on this runtime: waiting for them must not occupy it. Providers that were given no
        // exporter complain: nothing is lost then.
        let tracers = tokio::task::spawn_blocking(move || drop(tracers.shutdown()));
        let metrics = tokio::task::spawn_blocking(move || metrics.shutdown());
        let both = async { tokio::join!(tracers, metrics) };
        if tokio::time::timeout(LAST_EXPORT, both).await.is_err() {
            tracing::warn!("the collector does not answer: the last traces or metrics are lost");
        }
    }
}
