//! A message as the stream of events in which the API sends it, at the pace of the script.

use std::{convert::Infallible, time::Duration};

use axum::body::{Body, Bytes};
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use super::{
    ledger::Entry,
    reply::{Block, Reply},
};

/// Something to send, and whether it is a piece of the text.
struct Part {
    bytes: Bytes,
    is_piece: bool,
}

/// The body of an answer that streams; `entry` learns when all of it was sent.
pub(super) fn body(reply: &Reply, message: &Value, entry: Entry) -> Body {
    let parts = parts(reply, message);
    let (pace, cut, stall) = (reply.pace.unwrap_or_default(), reply.cut, reply.stall);
    let is_whole = cut.is_none() && stall.is_none();
    let mut seen = 0;
    // What is cut or stalls ends before the piece that would be one too many.
    let limit = cut.or(stall).unwrap_or(usize::MAX);
    let mut until = Vec::new();
    for part in parts {
        if part.is_piece {
            seen += 1;
            if seen > limit {
                break;
            }
        }
        until.push(part);
    }
    if !is_whole && seen <= limit {
        // Shorter than the script thinks: the end is missing all the same.
        until.truncate(until.len().saturating_sub(3));
    }
    if let Some(kind) = &reply.broken {
        let error = json!({"type": "error", "error": {"type": kind, "message": kind}});
        until.push(event(&error, false));
    }
    let sent = stream::iter(until).then(move |part| async move {
        if part.is_piece && pace > Duration::ZERO {
            tokio::time::sleep(pace).await;
        }
        Ok::<_, std::io::Error>(part.bytes)
    });
    let end = stream::once(async move {
        if stall.is_some() {
            std::future::pending::<()>().await;
        }
        if cut.is_some() {
            return Err(std::io::Error::other("the script cuts the stream"));
        }
        entry.complete();
        Ok(Bytes::new())
    });
    Body::from_stream(sent.chain(end))
}

/// The body of an answer that does not stream.
pub(super) fn whole(message: &Value, entry: Entry) -> Body {
    let text = message.to_string();
    Body::from_stream(stream::once(async move {
        entry.complete();
        Ok::<_, Infallible>(Bytes::from(text))
    }))
}

fn parts(reply: &Reply, message: &Value) -> Vec<Part> {
    let mut start = message.clone();
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    // The start tells of the first token alone; the end has the total.
    start["usage"] = reply.usage.told(1.min(reply.usage.output));
    let mut parts = vec![event(&json!({"type": "message_start", "message": start}), false)];
    for (index, block) in reply.blocks.iter().enumerate() {
        let (empty, deltas, is_piece) = match block {
            Block::Text(text) => {
                let deltas = pieces(text, reply.comes_in_pieces())
                    .map(|piece| json!({"type": "text_delta", "text": piece}))
                    .collect::<Vec<_>>();
                (json!({"type": "text", "text": ""}), deltas, true)
            }
            Block::Thinking(text) => {
                let mut deltas = pieces(text, reply.comes_in_pieces())
                    .map(|piece| json!({"type": "thinking_delta", "thinking": piece}))
                    .collect::<Vec<_>>();
                deltas.push(json!({"type": "signature_delta", "signature": "ZmFrZQ=="}));
                (json!({"type": "thinking", "thinking": "", "signature": ""}), deltas, true)
            }
            Block::Tool(..) => {
                let mut empty = message["content"][index].clone();
                let input = empty["input"].to_string();
                empty["input"] = json!({});
                (empty, vec![json!({"type": "input_json_delta", "partial_json": input})], false)
            }
        };
        let begin = json!({"type": "content_block_start", "index": index, "content_block": empty});
        parts.push(event(&begin, false));
        for delta in deltas {
            let delta = json!({"type": "content_block_delta", "index": index, "delta": delta});
            parts.push(event(&delta, is_piece));
        }
        parts.push(event(&json!({"type": "content_block_stop", "index": index}), false));
    }
    let stop = json!({"stop_reason": message["stop_reason"], "stop_sequence": null});
    let end = json!({"type": "message_delta", "delta": stop, "usage": message["usage"]});
    parts.push(event(&end, false));
    parts.push(event(&json!({"type": "message_stop"}), false));
    parts
}

fn event(event: &Value, is_piece: bool) -> Part {
    let name = event["type"].as_str().unwrap_or_default();
    Part { bytes: format!("event: {name}\ndata: {event}\n\n").into(), is_piece }
}

/// The words of a text, each with the space behind it, or all of it at once.
fn pieces(text: &str, apart: bool) -> Box<dyn Iterator<Item = &str> + '_> {
    if apart { Box::new(text.split_inclusive(' ')) } else { Box::new(std::iter::once(text)) }
}
