//! Traces and metrics on their way to a collector: the real program sends, a small HTTP server of
//! the test stands for the collector and keeps what it gets.
#![expect(clippy::unwrap_used, reason = "tests")]

mod command;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use archon_awo::clock::Clock;

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use command::Program;
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
