//! Turns the pieces of a log into lines a person can read: what the agent said, which tools it used,
//! what happened around it.

use std::{collections::BTreeMap, fmt::Write};

use chrono::{DateTime, Utc};
use console::style;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{
    other_agents,
    output::{first_line, plain},
};
use crate::{domain::Redactor, store::LogChunk};

/// Longest line that is held back until it ends, in bytes; a longer one is shown in parts.
const LONGEST_LINE: usize = 1 << 20;
/// Columns of a one-line summary.
pub(super) const SUMMARY: usize = 160;

/// Which writer a line belongs to: lines of two writers must not be glued together.
type Source = (Option<Uuid>, String);

/// Remembers lines that have not ended yet.
#[derive(Debug, Default)]
pub(super) struct LogView {
    /// A secret may show only when colours and controls are gone, and before a line is shortened.
    redactor: Redactor,
    open: BTreeMap<Source, Entry>,
}

/// One line of the log.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Entry {
    /// The chunk in which it ended.
    seq: i64,
    timestamp: DateTime<Utc>,
    step: Option<String>,
    stream: String,
    /// The line as text.
    line: String,
}

impl LogView {
    /// A view without the secrets that `redactor` knows.
    pub fn new(redactor: &Redactor) -> Self {
        Self { redactor: redactor.clone(), ..Self::default() }
    }

    /// The whole lines that `chunk` completes.
    pub fn entries(&mut self, chunk: &LogChunk) -> Vec<Entry> {
        let writer = (chunk.run_id, chunk.stream.clone());
        let text = String::from_utf8_lossy(&chunk.data);
        let mut pending = self.open.remove(&writer).map(|entry| entry.line).unwrap_or_default();
        let entry = |line: String| Entry {
            seq: chunk.seq,
            timestamp: chunk.created_at,
            step: chunk.step_name.clone(),
            stream: chunk.stream.clone(),
            line,
        };
        let mut entries = Vec::new();
        for part in text.split_inclusive('\n') {
            pending.push_str(part.trim_end_matches(['\n', '\r']));
            // An event is stored whole, with or without an end of line.
            if part.ends_with('\n') || chunk.stream == "event" || pending.len() > LONGEST_LINE {
                entries.push(entry(std::mem::take(&mut pending)));
            }
        }
        if !pending.is_empty() {
            self.open.insert(writer, entry(pending));
        }
        entries.retain(|entry| !entry.line.is_empty());
        entries
    }

    /// Lines that never ended.
    pub fn last_entries(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.open).into_values().collect()
    }

    /// The lines of `chunk` for a person.
    pub fn lines(&mut self, chunk: &LogChunk) -> Vec<String> {
        let entries = self.entries(chunk);
        entries.iter().flat_map(|entry| readable(entry, &self.redactor)).collect()
    }

    /// Lines that never ended, for a person.
    pub fn last_lines(&mut self) -> Vec<String> {
        let entries = self.last_entries();
        entries.iter().flat_map(|entry| readable(entry, &self.redactor)).collect()
    }
}

fn readable(entry: &Entry, redactor: &Redactor) -> Vec<String> {
    let clean = |text: &str| redactor.text(&plain(text));
    let step = entry.step.as_deref().unwrap_or("-");
    let head = style(format!("{} {step:<13}", entry.timestamp.format("%H:%M:%S"))).dim();
    let line = |text: &str| format!("{head} {text}");
    if entry.stream == "stderr" {
        return vec![line(&style(clean(&entry.line)).yellow().to_string())];
    }
    let value = serde_json::from_str::<Value>(&entry.line);
    let texts = match value.map(|value| redactor.value(plain_value(value))) {
        Ok(value) if entry.stream == "event" => vec![event(&value)],
        Ok(value) if value.get("type").is_some() => message(&value),
        _ => vec![clean(&entry.line)],
    };
    texts.into_iter().flat_map(|text| text.lines().map(&line).collect::<Vec<_>>()).collect()
}

/// The value with every text in it plain.
fn plain_value(value: Value) -> Value {
    match value {
        Value::String(text) => plain(&text).into(),
        Value::Array(items) => items.into_iter().map(plain_value).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (plain(&name), plain_value(value))).collect()
        }
        other => other,
    }
}

/// An event of the runner: its name, then its other fields.
fn event(value: &Value) -> String {
    let Some(fields) = value.as_object() else { return plain(&value.to_string()) };
    let name = fields.get("event").and_then(Value::as_str).unwrap_or("event");
    let mut text = style(plain(name)).bold().to_string();
    for (field, value) in fields {
        let known = ["event", "timestamp", "work_order_id", "level", "step"];
        if known.contains(&field.as_str()) || value.is_null() {
            continue;
        }
        let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        // Writing to a String cannot fail.
        let _ = write!(text, " {}={}", plain(field), first_line(&value, SUMMARY));
    }
    text
}

/// A line of the agent's stream: nothing for those that only say that it lives.
fn message(value: &Value) -> Vec<String> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    match text("/type") {
        Some("assistant" | "user") => {
            if let Some(content) = text("/message/content") {
                return vec![plain(content)];
            }
            let blocks = value.pointer("/message/content").and_then(Value::as_array);
            blocks.into_iter().flatten().filter_map(block).collect()
        }
        Some("result") if value.get("subtype").is_some() => vec![result(value)],
        Some("system") => match text("/subtype") {
            Some("init") => {
                let model = text("/model").unwrap_or("its default model");
                vec![style(format!("agent started with {}", plain(model))).bold().to_string()]
            }
            Some("api_retry") => {
                let error = text("/error").unwrap_or("unknown error");
                let status = value.get("error_status").map(Value::to_string).unwrap_or_default();
                let words = format!("retrying the model provider: {} {status}", plain(error));
                vec![style(words).yellow().to_string()]
            }
            _ => Vec::new(),
        },
        _ => other_agents::said(value),
    }
}

fn block(block: &Value) -> Option<String> {
    let text = |field: &str| block.get(field).and_then(Value::as_str);
    match text("type")? {
        "text" => Some(plain(text("text")?)),
        "tool_use" => {
            let name = style(plain(text("name").unwrap_or("tool"))).cyan();
            let input = block.get("input").map(Value::to_string).unwrap_or_default();
            Some(format!("→ {name} {}", first_line(&input, SUMMARY)))
        }
        "tool_result" => {
            let failed = block.get("is_error").and_then(Value::as_bool) == Some(true);
            let content = block.get("content");
            let words = match content {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => String::new(),
            };
            let mark = if failed { style("✘").red() } else { style("←").dim() };
            Some(format!("{mark} {}", first_line(&words, SUMMARY)))
        }
        _ => None,
    }
}

fn result(value: &Value) -> String {
    let subtype = value.get("subtype").and_then(Value::as_str).unwrap_or("unknown");
    let turns = value.get("num_turns").and_then(Value::as_u64).unwrap_or_default();
    let cost = value.get("total_cost_usd").and_then(Value::as_f64).unwrap_or_default();
    let failed = value.get("is_error").and_then(Value::as_bool) == Some(true);
    // It may say more after it, which takes the result back.
    let words = format!("result of the agent: {}, {turns} turns, ${cost:.4}", plain(subtype));
    let styled = style(words).bold();
    if failed { styled.red().to_string() } else { styled.to_string() }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::LogView;
    use crate::store::LogChunk;

    fn chunk(seq: i64, stream: &str, data: &[u8]) -> LogChunk {
        LogChunk {
            seq,
            step_name: Some("execute".to_owned()),
            run_id: None,
            stream: stream.to_owned(),
            data: data.to_vec(),
            created_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_line_split_over_chunks_is_shown_once_and_whole() {
        let mut view = LogView::default();
        assert!(view.lines(&chunk(1, "stdout", b"one ")).is_empty());
        assert_eq!(view.lines(&chunk(2, "stderr", b"warning\n")).len(), 1);
        let lines = view.lines(&chunk(3, "stdout", b"line\nrest"));
        assert_eq!(lines, ["00:00:00 execute       one line"]);
        assert_eq!(view.last_lines(), ["00:00:00 execute       rest"]);
    }

    #[test]
    fn what_the_agent_says_and_does_is_readable() {
        let mut view = LogView::default();
        let stream = concat!(
            r#"{"type":"system","subtype":"init","model":"m-1"}"#,
            "\n",
            r#"{"type":"assistant","message":{"content":[{"type":"text","text":"Hi"},{"type":"tool_use","name":"Write","input":{"file_path":"a.txt"}}]}}"#,
            "\n",
            r#"{"type":"user","message":{"content":[{"type":"tool_result","content":"done\nmore"}]}}"#,
            "\n",
            r#"{"type":"stream_event","event":{}}"#,
            "\n",
            r#"{"type":"result","subtype":"success","num_turns":3,"total_cost_usd":0.5,"is_error":false}"#,
            "\n",
        );
        let lines = view.lines(&chunk(1, "stdout", stream.as_bytes()));
        let texts: Vec<&str> =
            lines.iter().map(|line| &line["00:00:00 execute       ".len()..]).collect();
        assert_eq!(
            texts,
            [
                "agent started with m-1",
                "Hi",
                "→ Write {\"file_path\":\"a.txt\"}",
                "← done",
                "result of the agent: success, 3 turns, $0.5000"
            ]
        );
    }

    #[test]
    fn a_secret_that_shows_when_the_colours_are_gone_is_taken_out() {
        let secret = "Kq7/wLd93+ZxNv0TtRbY";
        let mut hidden = String::new();
        for letter in secret.chars() {
            hidden.push(letter);
            hidden.push_str("\u{1b}[0m\u{200b}\u{8}");
        }
        let said = serde_json::json!({ "type": "assistant", "message": { "content": [
            { "type": "text", "text": format!("{}{hidden}", "x".repeat(150)) },
            { "type": "tool_use", "name": "Bash", "input": { "command": format!("{}{hidden}", "x".repeat(150)) } },
        ] } });
        // As if the log had been written before this secret was known.
        let mut view = LogView::new(&crate::domain::Redactor::new([secret.to_owned().into()]));
        for (stream, text) in [("stdout", said.to_string()), ("stderr", hidden)] {
            let shown = view.lines(&chunk(1, stream, format!("{text}\n").as_bytes())).join("\n");
            assert!(shown.contains("[redacted]") || shown.contains('…'), "{shown}");
            assert!(!shown.contains(&secret[..4]), "{shown}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_far_as_they_are() {
        let mut view = LogView::default();
        let lines = view.lines(&chunk(1, "stdout", b"a\xff\x00\x1b[2Jb\n"));
        assert_eq!(lines, ["00:00:00 execute       a\u{fffd}b"]);
    }
}
