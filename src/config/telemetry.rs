//! Logs, traces and metrics.

use std::{fs, path::Path};

use clap::ValueEnum;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use secrecy::SecretString;
use tracing_subscriber::EnvFilter;

use super::{ConfigError, keys, source::Reader, values};

/// Form of the log (`AWO_LOG_FORMAT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people on a terminal, else for programs.
    Auto,
    /// One JSON object per line.
    Json,
    /// Lines for people.
    Human,
}

/// How traces and metrics are sent (`OTEL_EXPORTER_OTLP_PROTOCOL`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// gRPC, usually port 4317.
    Grpc,
    /// Protobuf over HTTP, usually port 4318.
    HttpProtobuf,
}

/// What is logged and sent.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    /// `LOG_LEVEL` as filter directives.
    pub log_filter: String,
    /// `AWO_LOG_FORMAT`.
    pub log_format: LogFormat,
    /// Where traces go: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, else the common endpoint.
    pub traces_endpoint: Option<String>,
    /// Where metrics go: `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`, else the common endpoint.
    pub metrics_endpoint: Option<String>,
    /// `OTEL_EXPORTER_OTLP_PROTOCOL`.
    pub protocol: OtlpProtocol,
    /// The content of `OTEL_EXPORTER_OTLP_CERTIFICATE`: at least one certificate in PEM form.
    pub authorities: Option<String>,
    /// `OTEL_EXPORTER_OTLP_HEADERS`.
    pub headers: Vec<(String, SecretString)>,
    /// `OTEL_SERVICE_NAME`.
    pub service_name: String,
}

impl TelemetryConfig {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        let protocol = reader.value(&keys::OTLP_PROTOCOL, |text| match text {
            "grpc" => Some(OtlpProtocol::Grpc),
            "http/protobuf" => Some(OtlpProtocol::HttpProtobuf),
            _ => None,
        })?;
        let address = |text: &str| values::web_address(text).map(|_| text.to_owned());
        let common = reader.optional(&keys::OTLP_ENDPOINT, address)?;
        // Over HTTP the common address is a base: each signal has its own path below it.
        let of_signal = |own: Option<String>, path: &str| {
            own.or_else(|| {
                let base = common.as_ref()?;
                Some(match protocol {
                    OtlpProtocol::Grpc => base.clone(),
                    OtlpProtocol::HttpProtobuf => {
                        format!("{}/v1/{path}", base.trim_end_matches('/'))
                    }
                })
            })
        };
        let traces = reader.optional(&keys::OTLP_TRACES_ENDPOINT, address)?;
        let metrics = reader.optional(&keys::OTLP_METRICS_ENDPOINT, address)?;
        let home = reader.host().home();
        let authorities = reader
            .optional(&keys::OTLP_CERTIFICATE, |text| values::path(text, home.as_deref()))?
            .map(|file| certificates(&file))
            .transpose()?;
        Ok(Self {
            log_filter: reader.value(&keys::LOG_LEVEL, log_filter)?,
            log_format: reader
                .value(&keys::LOG_FORMAT, |text| LogFormat::from_str(text, true).ok())?,
            traces_endpoint: of_signal(traces, "traces"),
            metrics_endpoint: of_signal(metrics, "metrics"),
            protocol,
            authorities,
            headers: reader.optional(&keys::OTLP_HEADERS, headers)?.unwrap_or_default(),
            service_name: reader.value(&keys::SERVICE_NAME, values::text)?,
        })
    }
}

/// The certificates in `file`.
fn certificates(file: &Path) -> Result<String, ConfigError> {
    let refused = |reason: &str| ConfigError::Invalid {
        name: keys::OTLP_CERTIFICATE.name().to_owned(),
        value: format!("{:?}", file.display()),
        place: String::new(),
        expected: format!("{} ({reason})", keys::OTLP_CERTIFICATE.expected),
    };
    let text = fs::read_to_string(file).map_err(|error| refused(&error.to_string()))?;
    match CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Ok(text),
        Ok(_) => Err(refused("it holds none")),
        Err(error) => Err(refused(&error.to_string())),
    }
}

/// A bare level is about our own events; of libraries only warnings are wanted.
fn log_filter(text: &str) -> Option<String> {
    let level = text.to_ascii_lowercase();
    let directives = match level.as_str() {
        "error" | "warn" | "info" | "debug" | "trace" | "off" => {
            let libraries = if matches!(level.as_str(), "error" | "off") { &level } else { "warn" };
            format!("{libraries},archon_awo={level}")
        }
        "warning" => "warn".to_owned(),
        "critical" => "error".to_owned(),
        // A lone word would be read as a target whose events are all wanted: a misspelled level.
        _ if !text.contains('=') => return None,
        _ => text.to_owned(),
    };
    EnvFilter::try_new(&directives).ok().map(|_| directives)
}

fn headers(text: &str) -> Option<Vec<(String, SecretString)>> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let header = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = url::form_urlencoded::parse(format!("v={}", value.trim()).as_bytes())
            .next()
            .map(|(_, value)| value.into_owned())?;
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let name = name.trim();
        (!name.is_empty() && name.chars().all(token)).then(|| (name.to_owned(), value.into()))
    };
    pairs.map(header).collect()
}
