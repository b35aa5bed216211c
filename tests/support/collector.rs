//! A collector of traces and metrics: OTLP over gRPC and over HTTP, both behind TLS with a certificate authority of
//! its own. What arrives is decoded by OTLP's own definitions and kept.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use archon_awo::process::blocking_command;
use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::any_value::Value,
    metrics::v1::ResourceMetrics,
    resource::v1::Resource,
    trace::v1::{ResourceSpans, Span},
};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

/// What has arrived, by whichever way.
#[derive(Debug, Default, Clone)]
pub struct Received {
    spans: Arc<Mutex<Vec<ResourceSpans>>>,
    metrics: Arc<Mutex<Vec<ResourceMetrics>>>,
    keys: Arc<Mutex<Vec<String>>>,
}

/// A running collector; it ends with the test's runtime.
pub struct Collector {
    folder: tempfile::TempDir,
    grpc: SocketAddr,
    http: SocketAddr,
    /// What has arrived.
    pub received: Received,
}

impl Collector {
    /// Listens on loopback.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        make_certificates(folder.path());
        let received = Received::default();
        let service = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(received.clone()))
            .add_service(MetricsServiceServer::new(received.clone()));
        let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let grpc = behind_tls(folder.path(), "h2", plain.local_addr().unwrap()).await;
        tokio::spawn(service.serve_with_incoming(TcpIncoming::from(plain)));

        let router = Router::new()
            .route("/v1/traces", post(traces))
            .route("/v1/metrics", post(metrics))
            .with_state(received.clone());
        let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = behind_tls(folder.path(), "http/1.1", plain.local_addr().unwrap()).await;
        tokio::spawn(async move { axum::serve(plain, router).await });
        Self { folder, grpc, http, received }
    }

    /// Its address for a value of `OTEL_EXPORTER_OTLP_PROTOCOL`.
    pub fn url(&self, protocol: &str) -> String {
        let address = if protocol == "grpc" { self.grpc } else { self.http };
        format!("https://{address}")
    }

    /// The certificate of its authority.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }
}

impl Received {
    /// Every span so far, each with what sent it.
    pub fn spans(&self) -> Vec<(Resource, Span)> {
        let mut all = Vec::new();
        for sent in self.spans.lock().unwrap().iter() {
            let resource = sent.resource.clone().unwrap();
            let spans = sent.scope_spans.iter().flat_map(|scope| scope.spans.clone());
            all.extend(spans.map(|span| (resource.clone(), span)));
        }
        all
    }

    /// The name of every metric so far, each with what sent it.
    pub fn metrics(&self) -> Vec<(Resource, String)> {
        let mut all = Vec::new();
        for sent in self.metrics.lock().unwrap().iter() {
            let resource = sent.resource.clone().unwrap();
            let names = sent.scope_metrics.iter().flat_map(|scope| scope.metrics.clone());
            all.extend(names.map(|metric| (resource.clone(), metric.name)));
        }
        all
    }

    /// The header `x-key` of every request so far.
    pub fn keys(&self) -> Vec<String> {
        self.keys.lock().unwrap().clone()
    }

    fn key(&self, value: Option<&str>) {
        self.keys.lock().unwrap().push(value.unwrap_or_default().to_owned());
    }
}

/// The text of an attribute.
pub fn attribute(resource: &Resource, name: &str) -> Option<String> {
    let pair = resource.attributes.iter().find(|pair| pair.key == name)?;
    match pair.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        other => panic!("{name} is {other:?}"),
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.key(request.metadata().get("x-key").map(|value| value.to_str().unwrap()));
        self.spans.lock().unwrap().extend(request.into_inner().resource_spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Received {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.key(request.metadata().get("x-key").map(|value| value.to_str().unwrap()));
        self.metrics.lock().unwrap().extend(request.into_inner().resource_metrics);
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn key_of(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-key").map(|value| value.to_str().unwrap())
}

async fn traces(State(received): State<Received>, headers: HeaderMap, body: Bytes) {
    received.key(key_of(&headers));
    let sent = ExportTraceServiceRequest::decode(body).unwrap();
    received.spans.lock().unwrap().extend(sent.resource_spans);
}

async fn metrics(State(received): State<Received>, headers: HeaderMap, body: Bytes) {
    received.key(key_of(&headers));
    let sent = ExportMetricsServiceRequest::decode(body).unwrap();
    received.metrics.lock().unwrap().extend(sent.resource_metrics);
}

/// A port that takes TLS off what comes and hands it on.
async fn behind_tls(folder: &Path, protocol: &str, plain: SocketAddr) -> SocketAddr {
    let certificate = CertificateDer::from_pem_file(folder.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Whoever does not trust the certificate goes away here.
                let Ok(mut client) = acceptor.accept(stream).await else { return };
                let mut server = TcpStream::connect(plain).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

/// An authority, and a certificate of it for 127.0.0.1.
fn make_certificates(folder: &Path) {
    let names = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n";
    fs::write(folder.join("names"), names).unwrap();
    let steps = [
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=Tests \
         -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.pem",
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=collector \
         -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names \
         -out server.pem",
    ];
    for step in steps {
        let mut openssl = blocking_command("openssl");
        openssl.env("PATH", "/usr/bin:/bin").current_dir(folder).args(step.split_whitespace());
        let ran = openssl.output().unwrap();
        assert!(ran.status.success(), "{step}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}
