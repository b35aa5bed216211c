//! Traces and metrics on their way to a collector: the real program sends, a server of the test stands for the
//! collector and keeps what it gets.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/collector.rs"]
mod collector;
mod command;

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use archon_awo::clock::Clock;

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use collector::{Collector, attribute};
use command::{Program, Ran};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::PgPool;
use tokio::net::TcpListener;

/// The header `x-key`, and the body.
type Request = (String, Vec<u8>);

#[derive(Debug, Default, Clone)]
struct Received(Arc<Mutex<Vec<Request>>>);

async fn keep(State(received): State<Received>, headers: HeaderMap, body: Bytes) {
    let key = headers.get("x-key").and_then(|value| value.to_str().ok()).unwrap_or_default();
    received.0.lock().unwrap().push((key.to_owned(), body.to_vec()));
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_spans_of_a_command_reach_the_collector_before_it_ends(pool: PgPool) {
    let (traces, metrics) = (Received::default(), Received::default());
    let router = Router::new()
        .route("/v1/traces", post(keep).with_state(traces.clone()))
        .route("/v1/metrics", post(keep).with_state(metrics.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let trace = "0af7651916cd43dd8448eb211c80319c";
    let program = Program::on(&pool)
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
        .with("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .with("OTEL_EXPORTER_OTLP_HEADERS", "x-key=collector%20key")
        .with("TRACEPARENT", &format!("00-{trace}-b7ad6b7169203331-01"));
    let arguments = ["enqueue", "--repository-url", "o/r", "--request", "x"];
    let ran = tokio::task::spawn_blocking(move || program.run(&arguments)).await.unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);

    let spans = traces.0.lock().unwrap().clone();
    assert_eq!(spans[0].0, "collector key");
    let all: Vec<u8> = spans.into_iter().flat_map(|(_, body)| body).collect();
    for text in ["db.agent_work_orders.enqueue", "cli.command", "archon-awo"] {
        assert!(contains(&all, text), "{text} was not sent");
    }
    let id: Vec<u8> =
        (0..16).map(|i| u8::from_str_radix(&trace[2 * i..][..2], 16).unwrap()).collect();
    assert!(all.windows(16).any(|window| window == id), "the caller's trace was not continued");
    assert!(!metrics.0.lock().unwrap().is_empty());

    let statement = "SELECT traceparent FROM awo.jobs";
    let stored: String = sqlx::query_scalar(statement).fetch_one(&pool).await.unwrap();
    assert!(stored.starts_with(&format!("00-{trace}-")), "{stored}");
    assert!(!stored.contains("b7ad6b7169203331"), "the order's parent is the command's own span");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_collector_that_is_away_delays_a_command_for_seconds_at_most(pool: PgPool) {
    for protocol in ["grpc", "http/protobuf"] {
        let program = Program::on(&pool)
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
            .with("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        let begin = Clock::system().now();
        let ran = tokio::task::spawn_blocking(move || program.run(&["list"])).await.unwrap();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(begin.elapsed() < Duration::from_secs(15), "{protocol}: {:?}", begin.elapsed());
    }
}

/// Runs `enqueue` off the threads of the test.
async fn enqueue(program: Program) -> Ran {
    let arguments = ["enqueue", "--repository-url", "o/r", "--request", "x"];
    tokio::task::spawn_blocking(move || program.run(&arguments)).await.unwrap()
}

fn sending(pool: &PgPool, collector: &Collector, protocol: &str) -> Program {
    Program::on(pool)
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url(protocol))
        .with("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .with("OTEL_EXPORTER_OTLP_HEADERS", "x-key=collector%20key")
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_collector_behind_tls_gets_spans_and_metrics(pool: PgPool) {
    // The authority by its own setting, or among those of the system.
    for trust in ["OTEL_EXPORTER_OTLP_CERTIFICATE", "SSL_CERT_FILE"] {
        for protocol in ["grpc", "http/protobuf"] {
            let collector = Collector::start().await;
            let authority = collector.ca_file();
            let program =
                sending(&pool, &collector, protocol).with(trust, authority.to_str().unwrap());
            let ran = enqueue(program).await;
            assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{trust} {protocol}");
            let spans = collector.received.spans();
            let sent = spans.iter().find(|(_, span)| span.name == "db.agent_work_orders.enqueue");
            let (resource, span) = sent.unwrap_or_else(|| panic!("{trust} {protocol}: {spans:?}"));
            assert_eq!(attribute(resource, "service.name").as_deref(), Some("archon-awo"));
            assert!(
                span.trace_id.len() == 16 && span.end_time_unix_nano > span.start_time_unix_nano
            );
            let metrics = collector.received.metrics();
            let sent = metrics.iter().any(|(_, name)| name == "awo_rescues_total");
            assert!(sent, "{trust} {protocol}: {metrics:?}");
            let keys = collector.received.keys();
            assert!(keys.iter().all(|key| key == "collector key"), "{keys:?}");
        }
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_collector_of_an_unknown_authority_gets_nothing(pool: PgPool) {
    for protocol in ["grpc", "http/protobuf"] {
        let (collector, other) = (Collector::start().await, Collector::start().await);
        // Neither by chance in the system's store, nor by the authority of somebody else.
        for authority in [None, Some(other.ca_file())] {
            let mut program = sending(&pool, &collector, protocol);
            if let Some(file) = authority {
                program = program.with("OTEL_EXPORTER_OTLP_CERTIFICATE", file.to_str().unwrap());
            }
            assert_eq!(enqueue(program).await.code, 0);
            assert!(collector.received.keys().is_empty(), "{protocol}");
        }
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused_with_its_name() {
    let program = Program::new().with("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1");
    let file = program.home().join("ca.pem");
    let name = file.to_str().unwrap().to_owned();
    let program = program.with("OTEL_EXPORTER_OTLP_CERTIFICATE", &name);
    let refused = format!(
        "OTEL_EXPORTER_OTLP_CERTIFICATE is \"{name}\": expected a file of certificates in PEM form"
    );
    program.run(&["list"]).refused(3, &format!("{refused} (No such file"));
    std::fs::write(&file, "no certificate").unwrap();
    program.run(&["list"]).refused(3, &format!("{refused} (it holds none)"));
}

/// Runs a worker until it has started, and stops it.
fn run_worker(program: &Program) {
    let mut child = program.spawn(&["worker"]);
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut log = String::new();
    while !log.contains("worker started") {
        assert!(lines.read_line(&mut log).unwrap() > 0, "the worker ended: {log}");
    }
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    std::io::copy(&mut lines, &mut std::io::sink()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{log}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn each_replica_is_an_instance_of_its_own(pool: PgPool) {
    let collector = Collector::start().await;
    let authority = collector.ca_file();
    let worker = |more: Option<(&str, &str)>| {
        let program = sending(&pool, &collector, "grpc")
            .with("OTEL_EXPORTER_OTLP_CERTIFICATE", authority.to_str().unwrap())
            .with("ARCHON_AWO_ENABLED", "false")
            .with("AWO_ALLOWED_HOSTS", "git.example");
        let program =
            more.into_iter().fold(program, |program, (name, value)| program.with(name, value));
        tokio::task::spawn_blocking(move || run_worker(&program))
    };
    let (first, second) = tokio::join!(worker(None), worker(None));
    first.unwrap();
    second.unwrap();
    let instance = |resource: &_| attribute(resource, "service.instance.id");
    let sent = collector.received.metrics();
    let sent: BTreeSet<Option<String>> = sent.iter().map(|(from, _)| instance(from)).collect();
    let workers = "SELECT worker_id::text FROM awo.workers";
    let workers: Vec<Option<String>> = sqlx::query_scalar(workers).fetch_all(&pool).await.unwrap();
    assert_eq!(sent, workers.into_iter().collect());
    assert_eq!(sent.len(), 2);

    // Whoever names it knows why.
    let named = ("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod-7,k8s.pod.name=pod-7");
    worker(Some(named)).await.unwrap();
    let sent = collector.received.metrics();
    assert!(sent.iter().any(|(from, _)| instance(from).as_deref() == Some("pod-7")), "{sent:?}");
}

/// Requests that a collector holds and never answers.
#[derive(Debug, Default, Clone)]
struct Held {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

struct Holding(Held);

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn hold(State(held): State<Held>) {
    let now = held.now.fetch_add(1, Ordering::SeqCst) + 1;
    held.most.fetch_max(now, Ordering::SeqCst);
    let _holding = Holding(held);
    std::future::pending::<()>().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_collector_that_hangs_is_given_up_for_traces_and_metrics_at_once(pool: PgPool) {
    let held = Held::default();
    let router = Router::new()
        .route("/v1/traces", post(hold).with_state(held.clone()))
        .route("/v1/metrics", post(hold).with_state(held.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let program = Program::on(&pool)
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
        .with("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    let begin = Clock::system().now();
    let ran = enqueue(program).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    // The end takes 5 s at most; the rest is for a busy machine.
    assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
    assert_eq!(held.most.load(Ordering::SeqCst), 2, "one waited for the other");
}
