//! A FAKE of the vendor's Messages API on loopback: no model, it plays back a script. The real CLI
//! talks to it as it would to the real one.
//!
//! Its limits: nothing is checked, neither key nor request; tokens are what the script says, whatever
//! was sent; caching, rate limits and batches exist only as figures and refusals of the script.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part")]

#[path = "messages_api/ledger.rs"]
mod ledger;
#[path = "messages_api/reply.rs"]
mod reply;
#[path = "messages_api/stream.rs"]
mod stream;

use std::{
    future::pending,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, post},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use self::ledger::Ledger;
#[allow(unused_imports, reason = "each test file uses its own part")]
pub use self::{
    ledger::Served,
    reply::{Block, Refusal, Reply, Turn, Usage},
};

/// Words that every prompt holds.
pub const PROMPT: &str = "play your script";

/// A running fake.
pub struct MessagesApi {
    /// For `ANTHROPIC_BASE_URL`.
    pub url: String,
    stage: Stage,
    server: JoinHandle<()>,
}

/// Words of a prompt, and what the fake says to it: one turn for each tool result since that
/// prompt, the last one again and again.
pub type Script = (&'static str, Vec<Turn>);

/// Chooses what to say to a request, which is asked for once in the order in which they come.
pub type Director = Box<dyn FnMut(&Value) -> Turn + Send>;

#[derive(Clone)]
struct Stage {
    director: Arc<Mutex<Director>>,
    requests: Arc<Mutex<Vec<Value>>>,
    ledger: Ledger,
}

impl MessagesApi {
    /// Starts a fake with one script, for prompts that hold [`PROMPT`].
    pub async fn start(turns: Vec<Turn>) -> Self {
        Self::start_with(vec![(PROMPT, turns)]).await
    }

    /// Starts a fake that knows the prompts it is sent by their words.
    pub async fn start_with(scripts: Vec<Script>) -> Self {
        Self::directed(Box::new(move |request| by_words(&scripts, request))).await
    }

    /// Starts a fake that says what `director` chooses.
    pub async fn directed(director: Director) -> Self {
        let stage = Stage {
            director: Arc::new(Mutex::new(director)),
            requests: Arc::default(),
            ledger: Ledger::default(),
        };
        let routes = Router::new()
            .route("/v1/messages", post(answer))
            .route("/v1/messages/count_tokens", post(|| async { Json(json!({"input_tokens": 1})) }))
            .fallback(any(|| async { StatusCode::OK }))
            .layer(DefaultBodyLimit::disable())
            .with_state(stage.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, stage, server }
    }

    /// Plays other scripts from now on.
    pub fn play(&self, scripts: Vec<Script>) {
        *self.stage.director.lock().unwrap() = Box::new(move |request| by_words(&scripts, request));
    }

    /// The bodies of the requests so far.
    pub fn requests(&self) -> Vec<Value> {
        self.stage.requests.lock().unwrap().clone()
    }

    /// What became of them, in the same order.
    pub fn served(&self) -> Vec<Served> {
        self.stage.ledger.read()
    }

    /// What all complete answers consumed together.
    pub fn spent(&self) -> Usage {
        self.served().iter().filter(|served| served.is_complete).map(|served| served.usage).sum()
    }
}

impl Drop for MessagesApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(stage): State<Stage>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap();
    let streams = request["stream"].as_bool().unwrap_or_default();
    let (parts, entry, number) = {
        // One at a time, so that requests, bill and script have one order.
        let mut director = stage.director.lock().unwrap();
        let parts = director(&request).parts();
        let usage = parts.as_ref().and_then(|parts| parts.as_ref().ok()).map(|reply| reply.usage);
        let entry = stage.ledger.enter(&request, usage.unwrap_or(Usage::ZERO));
        let mut requests = stage.requests.lock().unwrap();
        requests.push(request.clone());
        (parts, entry, requests.len())
    };
    let reply = match parts {
        None => pending().await,
        Some(Err(refusal)) => return refuse(&refusal),
        Some(Ok(reply)) => reply,
    };
    tokio::time::sleep(reply.delay).await;
    let message = message(&reply, number, &request["model"]);
    let (kind, body) = if streams {
        ("text/event-stream", stream::body(&reply, &message, entry))
    } else {
        ("application/json", stream::whole(&message, entry))
    };
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

/// The message; the CLI takes those of one id for one message, over several runs too.
fn message(reply: &Reply, number: usize, model: &Value) -> Value {
    let block = |(index, block): (usize, &Block)| match block {
        Block::Text(text) => json!({"type": "text", "text": text}),
        Block::Thinking(text) => {
            json!({"type": "thinking", "thinking": text, "signature": "ZmFrZQ=="})
        }
        Block::Tool(name, input) => {
            let id = format!("toolu_fake{number}x{index}");
            json!({"type": "tool_use", "id": id, "name": name, "input": input})
        }
    };
    let content: Vec<Value> = reply.blocks.iter().enumerate().map(block).collect();
    json!({
        "id": format!("msg_fake{number}"), "type": "message", "role": "assistant",
        "model": model, "content": content, "stop_reason": reply.stop_reason(),
        "stop_sequence": null, "usage": reply.usage.told(reply.usage.output),
    })
}

fn refuse(refusal: &Refusal) -> Response {
    let error = json!({"type": refusal.kind, "message": refusal.message});
    let body = json!({"type": "error", "error": error}).to_string();
    let (kind, body) = match &refusal.body {
        Some(body) => ("text/html", body.clone()),
        None => ("application/json", body),
    };
    let status = StatusCode::from_u16(refusal.status).unwrap();
    let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
    for (name, value) in &refusal.headers {
        response.headers_mut().insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    response
}

/// What to say now. The CLI adds messages of its own, so a prompt is told by its words; of several
/// prompts in one conversation the last one counts.
fn by_words(scripts: &[Script], request: &Value) -> Turn {
    let messages = request["messages"].as_array().map_or(&[][..], Vec::as_slice);
    let last_with =
        |words: &str| messages.iter().rposition(|message| message.to_string().contains(words));
    let script = scripts.iter().max_by_key(|(words, _)| last_with(words)).unwrap();
    let after = last_with(script.0).map_or(0, |at| at + 1);
    let blocks = messages[after..].iter().filter_map(|message| message["content"].as_array());
    let results = blocks.flatten().filter(|block| block["type"] == "tool_result").count();
    script.1[results.min(script.1.len() - 1)].clone()
}
