//! Sends spans and metrics to a collector (OTLP over gRPC, or Protobuf over HTTP).
//!
//! The SDK exports from threads of its own, which know no tokio runtime, while both transports need
//! one: [`OnRuntime`] lends them ours.

use std::{collections::HashMap, future::Future, pin::pin, time::Duration};

use axum::http::{HeaderMap, HeaderName};
use opentelemetry::trace::Status;
use opentelemetry_otlp::{
    MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
    tonic_types::{
        metadata::MetadataMap,
        transport::{Certificate, ClientTlsConfig},
    },
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
    trace::SpanData,
};
use secrecy::ExposeSecret;
use tokio::runtime::Handle;

use super::TelemetryError;
use crate::{
    config::{OtlpProtocol, TelemetryConfig},
    domain::Redactor,
};

/// Longest time one export may take: it also bounds how long a process that ends waits for a
/// collector that does not answer.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// An exporter whose futures run with our runtime entered.
#[derive(Debug)]
pub(super) struct OnRuntime<E> {
    exporter: E,
    runtime: Handle,
    redactor: Redactor,
}

impl<E> OnRuntime<E> {
    /// Polls `future` inside the runtime, whichever thread polls it.
    async fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            let _entered = self.runtime.enter();
            future.as_mut().poll(context)
        })
        .await
    }
}

impl<E> OnRuntime<E> {
    /// Takes the secrets out of every text of a span.
    fn redact(&self, span: &mut SpanData) {
        let clean = |text: &str| self.redactor.text(text);
        let events = span.events.events.iter_mut();
        let values = events.flat_map(|event| event.attributes.iter_mut());
        for pair in span.attributes.iter_mut().chain(values) {
            if let opentelemetry::Value::String(text) = &pair.value {
                pair.value = clean(text.as_str()).into();
            }
        }
        for event in &mut span.events.events {
            event.name = clean(&event.name).into();
        }
        if let Status::Error { description } = &span.status {
            span.status = Status::error(clean(description));
        }
    }
}

impl opentelemetry_sdk::trace::SpanExporter for OnRuntime<SpanExporter> {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        for span in &mut batch {
            self.redact(span);
        }
        self.run(self.exporter.export(batch)).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl PushMetricExporter for OnRuntime<MetricExporter> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.run(self.exporter.export(metrics)).await
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

pub(super) fn span_exporter(
    config: &TelemetryConfig,
    endpoint: &str,
    redactor: Redactor,
) -> Result<OnRuntime<SpanExporter>, TelemetryError> {
    let builder = SpanExporter::builder();
    // Both clients ask for it.
    crate::tls::choose_provider();
    let exporter = match config.protocol {
        OtlpProtocol::Grpc => builder
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .with_metadata(metadata(config))
            .with_tls_config(tls(config))
            .build(),
        OtlpProtocol::HttpProtobuf => builder
            .with_http()
            .with_http_client(client(config).map_err(|error| unusable("traces", endpoint, &error))?)
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .with_protocol(Protocol::HttpBinary)
            .with_headers(headers(config))
            .build(),
    };
    exporter
        .map(|exporter| OnRuntime { exporter, runtime: Handle::current(), redactor })
        .map_err(|error| unusable("traces", endpoint, &error))
}

pub(super) fn metric_exporter(
    config: &TelemetryConfig,
    endpoint: &str,
) -> Result<OnRuntime<MetricExporter>, TelemetryError> {
    let builder = MetricExporter::builder();
    // Both clients ask for it.
    crate::tls::choose_provider();
    let exporter = match config.protocol {
        OtlpProtocol::Grpc => builder
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .with_metadata(metadata(config))
            .with_tls_config(tls(config))
            .build(),
        OtlpProtocol::HttpProtobuf => builder
            .with_http()
            .with_http_client(
                client(config).map_err(|error| unusable("metrics", endpoint, &error))?,
            )
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .with_protocol(Protocol::HttpBinary)
            .with_headers(headers(config))
            .build(),
    };
    exporter
        .map(|exporter| OnRuntime {
            exporter,
            runtime: Handle::current(),
            redactor: Redactor::default(),
        })
        .map_err(|error| unusable("metrics", endpoint, &error))
}

fn unusable(signal: &'static str, endpoint: &str, error: &dyn std::error::Error) -> TelemetryError {
    TelemetryError::Exporter { signal, endpoint: endpoint.to_owned(), reason: error.to_string() }
}

/// Whom a collector's certificate may come from, over gRPC; asked only where its address is `https`.
fn tls(config: &TelemetryConfig) -> ClientTlsConfig {
    match &config.authorities {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_native_roots(),
    }
}

/// The same over HTTP.
fn client(config: &TelemetryConfig) -> reqwest::Result<reqwest::Client> {
    let mut client = reqwest::Client::builder().timeout(EXPORT_TIMEOUT);
    if let Some(pem) = &config.authorities {
        client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem.as_bytes())?);
    }
    client.build()
}

fn headers(config: &TelemetryConfig) -> HashMap<String, String> {
    let pairs = config.headers.iter();
    pairs.map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect()
}

fn metadata(config: &TelemetryConfig) -> MetadataMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        // Names that are no HTTP header names were refused when the settings were read.
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value.expose_secret().parse()) {
            headers.insert(name, value);
        }
    }
    MetadataMap::from_headers(headers)
}
