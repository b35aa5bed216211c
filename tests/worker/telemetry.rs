//! What a worker tells those who watch it: one trace per order, health, metrics.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::harness::Harness;

/// A collector on loopback that keeps what it is sent.
struct Collector {
    url: String,
    bodies: Arc<Mutex<Vec<Bytes>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Collector {
    async fn start() -> Self {
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let routes = Router::new()
            .route("/v1/traces", post(keep))
            .fallback(|| async { StatusCode::OK })
            .with_state(Arc::clone(&bodies));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, bodies, task }
    }

    /// The spans so far.
    fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().unwrap();
        // ExportTraceServiceRequest 1: ResourceSpans 2: ScopeSpans 2: Span.
        let resources = bodies.iter().flat_map(|body| parts(body, 1));
        let scopes = resources.flat_map(|resource| parts(resource, 2));
        scopes.flat_map(|scope| parts(scope, 2)).map(Span::read).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(State(bodies): State<Arc<Mutex<Vec<Bytes>>>>, body: Bytes) -> StatusCode {
    bodies.lock().unwrap().push(body);
    StatusCode::OK
}

/// The fields of an OTLP span that matter here; ids in hex.
#[derive(Debug, Clone, PartialEq)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
}

impl Span {
    fn read(message: &[u8]) -> Self {
        let hex = |field| -> String {
            let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap();
            let bytes = parts(message, field).concat();
            bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
        };
        let name = parts(message, 5).concat();
        let name = String::from_utf8(name).unwrap();
        Self { trace: hex(1), id: hex(2), parent: hex(4), name }
    }
}

/// The parts of a Protobuf message that have this field number and a length.
fn parts(message: &[u8], field: u64) -> Vec<&[u8]> {
    let (mut found, mut rest) = (Vec::new(), message);
    while !rest.is_empty() {
        let tag = number(&mut rest);
        let length = match tag & 7 {
            0 => {
                number(&mut rest);
                0
            }
            1 => 8,
            5 => 4,
            2 => usize::try_from(number(&mut rest)).unwrap(),
            kind => panic!("no Protobuf: a part of kind {kind}"),
        };
        let (part, after) = rest.split_at(length);
        if tag >> 3 == field && tag & 7 == 2 {
            found.push(part);
        }
        rest = after;
    }
    found
}

/// A number of variable length.
fn number(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = rest[0];
        *rest = &rest[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_order_goes_on_in_the_trace_of_whoever_ordered_it(pool: PgPool) {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const CALLER: &str = "00f067aa0ba902b7";
    let mut harness = Harness::new(pool);
    let collector = Collector::start().await;
    harness.set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.clone());
    harness.set("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    let worker = harness.start_worker();
    let order: String =
        sqlx::query_scalar("select awo_enqueue($1, 'Write a file', traceparent => $2)")
            .bind(harness.remote_url())
            .bind(format!("00-{TRACE}-{CALLER}-01"))
            .fetch_one(&harness.pool)
            .await
            .unwrap();
    harness.until_status(&order, "completed").await;
    harness.signal(worker, Signal::SIGTERM);
    assert_eq!(harness.ended(worker).await, Some(0));

    // The worker has sent everything before it ended.
    let mut spans = collector.spans();
    spans.retain(|span| span.trace == TRACE);
    let names = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let [job] = names("job.run")[..] else { panic!("{spans:?}") };
    assert_eq!(job.parent, CALLER);
    let steps = names("step.run");
    assert_eq!(steps.len(), 6, "{spans:?}");
    assert!(steps.iter().all(|step| step.parent == job.id), "{spans:?}");
    assert_eq!(names("agent.run").len(), 5, "{spans:?}");
    for name in
        ["git.refresh", "git.open_sandbox", "git.commit", "git.push", "forge.ensure_pull_request"]
    {
        let [span] = names(name)[..] else { panic!("{name}: {spans:?}") };
        assert!(steps.iter().any(|step| step.id == span.parent), "{name}: {spans:?}");
    }
    assert!(!names("db.steps.end").is_empty(), "{spans:?}");
    // Every line of the log about the order names the trace too.
    let log = std::fs::read_to_string(harness.path("worker-0.log")).unwrap();
    let line = log.lines().find(|line| line.contains("step completed")).unwrap();
    assert!(line.contains(TRACE), "{line}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_worker_answers_health_checks_until_its_last_order_has_ended(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.hold("execute");
    let worker = harness.start_worker_with(&[("AWO_DRAIN_GRACE", "30s")]);
    let order = harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    let address = address(&harness, "worker-0.log").await;

    assert_eq!(get(&address, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(get(&address, "/readyz").await, (200, "ok\n".to_owned()));
    let (code, body) = get(&address, "/health").await;
    let health: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &health["status"]), (200, &json!("healthy")), "{body}");
    assert_eq!(health["service"], "agent-work-orders");
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(health["enabled"], true);
    assert_eq!(health["storage_type"], "postgres");
    for (name, needed) in
        [("git", true), ("database", true), ("claude_cli", false), ("github_cli", false)]
    {
        let available = health["dependencies"][name]["available"].as_bool();
        assert!(if needed { available == Some(true) } else { available.is_some() }, "{body}");
    }
    let (code, metrics) = get(&address, "/metrics").await;
    assert_eq!(code, 200);
    for line in ["awo_running_orders", "awo_queue_depth{", "awo_claim_duration_seconds_bucket"] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    let url = format!("http://{address}");
    let (code, said) = harness.command(&["health", "--url", &url]);
    assert_eq!(code, Some(0), "{said}");

    harness.signal(worker, Signal::SIGTERM);
    harness.until("select draining_at is not null from awo.workers").await;
    until_not_ready(&address).await;
    assert_eq!(get(&address, "/readyz").await, (503, "draining\n".to_owned()));
    assert_eq!(get(&address, "/livez").await.0, 200);
    let (code, body) = get(&address, "/health").await;
    let health: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &health["status"]), (200, &json!("degraded")), "{body}");
    assert_eq!(health["worker"], json!({"draining": true, "running": 1}), "{body}");

    harness.let_go("execute");
    assert_eq!(harness.ended(worker).await, Some(0));
    assert!(TcpStream::connect(&address).await.is_err(), "the port is still open");
    let (code, said) = harness.command(&["health", "--url", &url]);
    assert_ne!(code, Some(0), "{said}");
    // The step that ran was let end; the rest is for another worker.
    harness.until("select state = 'queued' from awo.jobs").await;
    assert_eq!(harness.steps(&order).await.last().unwrap(), "execute 1 ok");
}

/// Where a worker answers, from its log.
pub async fn address(harness: &Harness, log: &str) -> String {
    for _ in 0..500 {
        let text = std::fs::read_to_string(harness.path(log)).unwrap();
        let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let address = entries.into_iter().find_map(|entry| {
            let fields = [&entry["address"], &entry["fields"]["address"]];
            fields.into_iter().find_map(Value::as_str).map(str::to_owned)
        });
        if let Some(address) = address {
            return address;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the worker never said where it listens\n{}", harness.logs());
}

async fn until_not_ready(address: &str) {
    for _ in 0..500 {
        if get(address, "/readyz").await.0 != 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a draining worker is still ready");
}

/// One GET: status and body.
pub async fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
