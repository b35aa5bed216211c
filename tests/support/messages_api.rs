//! A FAKE of the vendor's Messages API on loopback: no model, it plays back a script. The real CLI
//! talks to it as it would to the real one.

use std::{
    future::pending,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, post},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Words that every prompt holds.
pub const PROMPT: &str = "play your script";

/// What the fake says when it is its turn.
#[derive(Debug, Clone)]
pub enum Turn {
    /// A final answer.
    Text(&'static str),
    /// Calls a tool of the CLI.
    Tool(&'static str, Value),
    /// Refuses with this status and error type.
    Refuse(u16, &'static str),
    /// Never answers.
    Hang,
}

/// A running fake.
pub struct MessagesApi {
    /// For `ANTHROPIC_BASE_URL`.
    pub url: String,
    requests: Arc<Mutex<Vec<Value>>>,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Script {
    turns: Vec<Turn>,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl MessagesApi {
    /// Starts a fake that plays `turns`, one for each tool result since the last prompt; the last
    /// one again and again.
    pub async fn start(turns: Vec<Turn>) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let script = Script { turns, requests: Arc::clone(&requests) };
        let routes = Router::new()
            .route("/v1/messages", post(answer))
            .fallback(any(|| async { StatusCode::OK }))
            .layer(DefaultBodyLimit::disable())
            .with_state(script);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, requests, server }
    }

    /// The bodies of the requests so far.
    pub fn requests(&self) -> Vec<Value> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for MessagesApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(script): State<Script>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap();
    let streams = request["stream"].as_bool().unwrap_or_default();
    let turn = tool_results(&request).min(script.turns.len() - 1);
    // The CLI takes messages of one id for one message, over several runs too.
    let number = {
        let mut requests = script.requests.lock().unwrap();
        requests.push(request);
        requests.len()
    };
    let (block, stop) = match script.turns[turn].clone() {
        Turn::Text(text) => (json!({"type": "text", "text": text}), "end_turn"),
        Turn::Tool(name, input) => {
            let id = format!("toolu_fake{number}");
            (json!({"type": "tool_use", "id": id, "name": name, "input": input}), "tool_use")
        }
        Turn::Refuse(status, kind) => {
            let error = json!({"type": "error", "error": {"type": kind, "message": kind}});
            let status = StatusCode::from_u16(status).unwrap();
            return (status, [(header::CONTENT_TYPE, "application/json")], error.to_string())
                .into_response();
        }
        Turn::Hang => pending().await,
    };
    let usage = json!({"input_tokens": 100, "output_tokens": 20});
    let message = json!({
        "id": format!("msg_fake{number}"), "type": "message", "role": "assistant",
        "model": "claude-fake", "content": [block], "stop_reason": stop, "stop_sequence": null,
        "usage": usage,
    });
    if streams {
        ([(header::CONTENT_TYPE, "text/event-stream")], events(&message)).into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], message.to_string()).into_response()
    }
}

/// How many tool results follow the last prompt. The CLI adds messages of its own, so the prompt is
/// told by its words.
fn tool_results(request: &Value) -> usize {
    let messages = request["messages"].as_array().map_or(&[][..], Vec::as_slice);
    let is_prompt = |message: &Value| message.to_string().contains(PROMPT);
    let after = messages.iter().rposition(is_prompt).map_or(0, |at| at + 1);
    let blocks = messages[after..].iter().filter_map(|message| message["content"].as_array());
    blocks.flatten().filter(|block| block["type"] == "tool_result").count()
}

/// The message as the stream of events in which the API sends it.
fn events(message: &Value) -> String {
    let block = &message["content"][0];
    let mut start = message.clone();
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    let (empty, delta) = if block["type"] == "text" {
        let delta = json!({"type": "text_delta", "text": block["text"]});
        (json!({"type": "text", "text": ""}), delta)
    } else {
        let mut empty = block.clone();
        empty["input"] = json!({});
        let input = block["input"].to_string();
        (empty, json!({"type": "input_json_delta", "partial_json": input}))
    };
    let stop = json!({"stop_reason": message["stop_reason"], "stop_sequence": null});
    let events = [
        json!({"type": "message_start", "message": start}),
        json!({"type": "content_block_start", "index": 0, "content_block": empty}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": stop, "usage": message["usage"]}),
        json!({"type": "message_stop"}),
    ];
    let line = |event: &Value| {
        format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
    };
    events.iter().map(line).collect()
}
