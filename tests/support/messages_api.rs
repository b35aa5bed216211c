//! A FAKE of the vendor's Messages API on loopback: no model, it plays back a script. The real CLI
//! talks to it as it would to the real one.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part")]

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
    stage: Stage,
    server: JoinHandle<()>,
}

/// Words of a prompt, and what the fake says to it: one turn for each tool result since that
/// prompt, the last one again and again.
pub type Script = (&'static str, Vec<Turn>);

#[derive(Clone)]
struct Stage {
    scripts: Arc<Mutex<Vec<Script>>>,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl MessagesApi {
    /// Starts a fake with one script, for prompts that hold [`PROMPT`].
    pub async fn start(turns: Vec<Turn>) -> Self {
        Self::start_with(vec![(PROMPT, turns)]).await
    }

    /// Starts a fake that knows the prompts it is sent by their words.
    pub async fn start_with(scripts: Vec<Script>) -> Self {
        let stage = Stage { scripts: Arc::new(Mutex::new(scripts)), requests: Arc::default() };
        let routes = Router::new()
            .route("/v1/messages", post(answer))
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
        *self.stage.scripts.lock().unwrap() = scripts;
    }

    /// The bodies of the requests so far.
    pub fn requests(&self) -> Vec<Value> {
        self.stage.requests.lock().unwrap().clone()
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
    let turn = stage.turn(&request);
    // The CLI takes messages of one id for one message, over several runs too.
    let number = {
        let mut requests = stage.requests.lock().unwrap();
        requests.push(request);
        requests.len()
    };
    let (block, stop) = match turn {
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

impl Stage {
    /// What to say now. The CLI adds messages of its own, so a prompt is told by its words; of
    /// several prompts in one conversation the last one counts.
    fn turn(&self, request: &Value) -> Turn {
        let messages = request["messages"].as_array().map_or(&[][..], Vec::as_slice);
        let scripts = self.scripts.lock().unwrap();
        let last_with =
            |words: &str| messages.iter().rposition(|message| message.to_string().contains(words));
        let script = scripts.iter().max_by_key(|(words, _)| last_with(words)).unwrap();
        let after = last_with(script.0).map_or(0, |at| at + 1);
        let blocks = messages[after..].iter().filter_map(|message| message["content"].as_array());
        let results = blocks.flatten().filter(|block| block["type"] == "tool_result").count();
        script.1[results.min(script.1.len() - 1)].clone()
    }
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
