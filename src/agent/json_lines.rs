//! Redacts what shows only when the agent's JSON lines are read: secrets written with escapes, and
//! secrets split over several pieces of one text.
//!
//! The pieces of a message on its way, which the Claude CLI prints in an envelope of its own, are a sign of life
//! and nothing more: the message follows as one line, so they are left out, but for the first and the last, which tell
//! what the message consumed, also when nothing follows. A program that prints the events of
//! the provider as they are prints nothing else. Whoever joins its deltas reads what no line holds, so the text
//! of each content block is redacted as one stream.

use std::{collections::BTreeMap, sync::LazyLock};

use aho_corasick::AhoCorasick;
use serde_json::Value;

use super::frames::LONGEST_LINE;
use crate::domain::{RedactStream, Redactor};

/// Most content blocks that are open at a time; the oldest one ends when there are more.
const MOST_BLOCKS: usize = 64;
/// Fields of a block or a delta that are not pieces of a text.
const NO_TEXT: [&str; 3] = ["type", "id", "name"];

/// The type of a line with a piece of a message on its way.
const ENVELOPE: &str = "stream_event";
/// The events that begin and end a message.
const COUNTED_PIECES: [&str; 2] = ["message_start", "message_delta"];
const TYPE_OF_PIECE: &str = "\"type\":\"stream_event\"";

/// Lines without any of these need not be read.
static SIGNS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    AhoCorasick::new(["content_block", "message_st", ENVELOPE, "\"delta\":true", "\\u00"]).ok()
});
/// The member of a whole message in pieces, as the Gemini CLI prints them.
const MESSAGE: &str = "content";

/// A filter over the agent's output, whose bytes were redacted before.
pub struct JsonLines {
    redactor: Redactor,
    /// The beginning of a line that may be JSON.
    line: Vec<u8>,
    /// The rest of the line passes as it is.
    passing: bool,
    blocks: BTreeMap<BlockKey, Block>,
}

/// Which block of the message, which field of it.
type BlockKey = (u64, String);

struct Block {
    text: RedactStream,
    /// The last delta, to be sent again with what was held back.
    last: Value,
}

impl JsonLines {
    /// A filter for one stream.
    pub fn new(redactor: Redactor) -> Self {
        Self { redactor, line: Vec::new(), passing: false, blocks: BTreeMap::new() }
    }

    /// Takes the next bytes and returns what may be stored of them.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let ends = piece.ends_with(b"\n");
            if self.passing {
                out.extend_from_slice(piece);
                self.passing = !ends;
                continue;
            }
            self.line.extend_from_slice(piece);
            let is_text = !self.line.starts_with(b"{") || self.line.len() > LONGEST_LINE;
            if is_text {
                out.append(&mut self.line);
                self.passing = !ends;
            } else if ends {
                self.take_line(&mut out);
            }
        }
        out
    }

    /// Returns the beginning of a line that is no JSON when nothing more comes for a while.
    pub fn pause(&mut self) -> Vec<u8> {
        if self.line.is_empty() || self.line.starts_with(b"{\"") {
            return Vec::new();
        }
        self.passing = true;
        std::mem::take(&mut self.line)
    }

    /// Ends the stream and returns what was held back.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.line.is_empty() {
            self.take_line(&mut out);
        }
        if !self.blocks.is_empty() && !out.is_empty() && !out.ends_with(b"\n") {
            out.push(b'\n');
        }
        self.end_blocks(|_| true, &mut out);
        out
    }

    /// Whether something is held back that a pause may give out.
    pub fn holds(&self) -> bool {
        !self.line.is_empty()
    }

    fn take_line(&mut self, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.line);
        // What is not a piece of an open message ends it.
        let read = self.blocks.keys().any(|(.., field)| field == MESSAGE)
            || SIGNS.as_ref().is_none_or(|signs| signs.is_match(&line));
        match read.then(|| serde_json::from_slice::<Value>(&line)) {
            Some(Ok(value)) => self.take_value(&line, value, out),
            // A piece may end in half a character, which is no JSON to serde.
            Some(Err(_)) if String::from_utf8_lossy(&line).contains(TYPE_OF_PIECE) => {}
            _ => out.extend_from_slice(&line),
        }
    }

    fn take_value(&mut self, line: &[u8], mut value: Value, out: &mut Vec<u8>) {
        if text(&value, "type") == ENVELOPE
            && value
                .get("event")
                .is_some_and(|event| !COUNTED_PIECES.contains(&text(event, "type")))
        {
            return;
        }
        let before = value.clone();
        let index = value.get("index").and_then(Value::as_u64).unwrap_or_default();
        let of_block = |key: &BlockKey| key.0 == index;
        match text(&value, "type").to_owned().as_str() {
            "content_block_start" => {
                self.end_blocks(of_block, out);
                self.redact_pieces(&mut value, "content_block", index, out);
            }
            "content_block_delta" => self.redact_pieces(&mut value, "delta", index, out),
            "content_block_stop" => self.end_blocks(of_block, out),
            "message_start" | "message_stop" => self.end_blocks(|_| true, out),
            "message" if value.get("delta").and_then(Value::as_bool) == Some(true) => {
                self.redact_pieces(&mut value, "", index, out);
            }
            _ => self.end_blocks(|(.., field)| field == MESSAGE, out),
        }
        let value = self.redactor.value(value);
        if value == before {
            out.extend_from_slice(line);
        } else {
            push_line(&value, out);
        }
    }

    /// Sends each text in the member `name` of the event through the stream of its block; without a name
    /// the text of a message.
    fn redact_pieces(&mut self, value: &mut Value, name: &str, index: u64, out: &mut Vec<u8>) {
        let template = value.clone();
        let Some(pieces) = pieces(value, name) else { return };
        for (field, piece) in pieces {
            let Value::String(piece) = piece else { continue };
            if NO_TEXT.contains(&field.as_str()) || name.is_empty() && field != MESSAGE {
                continue;
            }
            let key = (index, field.clone());
            if !self.blocks.contains_key(&key) && self.blocks.len() >= MOST_BLOCKS {
                end_first(&mut self.blocks, out);
            }
            let block = self
                .blocks
                .entry(key)
                .or_insert_with(|| Block { text: self.redactor.stream(), last: Value::Null });
            // Of a start only the text goes on in the deltas.
            if name != "content_block" {
                block.last.clone_from(&template);
            }
            *piece = String::from_utf8_lossy(&block.text.push(piece.as_bytes())).into_owned();
        }
    }

    fn end_blocks(&mut self, which: impl Fn(&BlockKey) -> bool, out: &mut Vec<u8>) {
        let ended: Vec<BlockKey> = self.blocks.keys().filter(|key| which(key)).cloned().collect();
        for key in ended {
            if let Some(block) = self.blocks.remove(&key) {
                end_block(&key, block, out);
            }
        }
    }
}

fn end_first(blocks: &mut BTreeMap<BlockKey, Block>, out: &mut Vec<u8>) {
    if let Some((key, block)) = blocks.pop_first() {
        end_block(&key, block, out);
    }
}

/// Writes what was held back of a block as one more delta.
fn end_block(key: &BlockKey, block: Block, out: &mut Vec<u8>) {
    let rest = String::from_utf8_lossy(&block.text.finish()).into_owned();
    let mut last = block.last;
    if rest.is_empty() {
        return;
    }
    let name = if key.1 == MESSAGE { "" } else { "delta" };
    if let Some(piece) = pieces(&mut last, name).and_then(|delta| delta.get_mut(&key.1)) {
        *piece = Value::String(rest);
        push_line(&last, out);
    }
}

/// The member `name` of an event.
fn pieces<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut serde_json::Map<String, Value>> {
    if name.is_empty() { value.as_object_mut() } else { value.get_mut(name)?.as_object_mut() }
}

fn push_line(value: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(value.to_string().as_bytes());
    out.push(b'\n');
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::JsonLines;
    use crate::domain::Redactor;

    const TOKEN: &str = "secret/0123456789\"abcdef";

    fn filter(lines: &[String]) -> String {
        let redactor = Redactor::new([TOKEN.to_owned().into()]);
        let (mut bytes, mut filter) = (redactor.stream(), JsonLines::new(redactor));
        let mut out = Vec::new();
        for line in lines {
            out.extend(filter.push(&bytes.push(line.as_bytes())));
        }
        out.extend(filter.push(&bytes.finish()));
        out.extend(filter.finish());
        String::from_utf8(out).unwrap()
    }

    fn event(event: &Value) -> String {
        format!("{event}\n")
    }

    fn delta(index: u64, field: &str, text: &str) -> String {
        event(&json!({ "type": "content_block_delta", "index": index,
            "delta": { "type": "some_delta", field: text } }))
    }

    /// What somebody reads who joins the deltas of a block.
    fn joined(output: &str, index: u64, field: &str) -> String {
        let pieces = output.lines().filter_map(|line| {
            let event = serde_json::from_str::<Value>(line).ok()?;
            let of_block = event.get("index")?.as_u64()? == index;
            of_block.then_some(event.get("delta")?.get(field)?.as_str()?.to_owned())
        });
        pieces.collect()
    }

    #[test]
    fn a_secret_split_over_deltas_cannot_be_joined_again() {
        let stop = event(&json!({ "type": "content_block_stop", "index": 0 }));
        let lines: Vec<String> = ["a ", "secr", "et/0123", "456789\"", "abcdef", " b", " se"]
            .iter()
            .map(|piece| delta(0, "text", piece))
            .chain([stop])
            .collect();
        let output = filter(&lines);
        assert_eq!(joined(&output, 0, "text"), "a [redacted] b se", "{output}");
        assert!(output.trim_end().ends_with(lines.last().unwrap().trim_end()), "{output}");
    }

    #[test]
    fn a_secret_split_over_pieces_of_a_message_cannot_be_joined_again() {
        let piece = |text: &str| {
            let line =
                json!({ "type": "message", "role": "assistant", "content": text, "delta": true });
            format!("{line}\n")
        };
        let end = "{\"type\":\"result\",\"status\":\"success\"}\n".to_owned();
        let mut lines =
            ["a ", "secr", "et/0123", "456789\"", "abcdef", " b", " se"].map(piece).to_vec();
        lines.push(end.clone());
        let output = filter(&lines);
        let joined: String = output
            .lines()
            .filter_map(|line| {
                Some(serde_json::from_str::<Value>(line).ok()?.get("content")?.clone())
            })
            .filter_map(|content| content.as_str().map(str::to_owned))
            .collect();
        assert_eq!(joined, "a [redacted] b se", "{output}");
        assert!(output.ends_with(&end), "{output}");
    }

    #[test]
    fn blocks_that_take_turns_are_joined_each_by_itself() {
        let inner = serde_json::to_string(&json!({ "command": format!("echo {TOKEN}") })).unwrap();
        let mut lines = Vec::new();
        for (at, c) in TOKEN.char_indices() {
            lines.push(delta(0, "text", &TOKEN[at..at + c.len_utf8()]));
            lines.push(delta(1, "partial_json", &inner[at..at + c.len_utf8()]));
        }
        lines.push(delta(1, "partial_json", &inner[TOKEN.len()..]));
        let output = filter(&lines);
        assert_eq!(joined(&output, 0, "text"), "[redacted]");
        assert_eq!(joined(&output, 1, "partial_json"), r#"{"command":"echo [redacted]"}"#);
    }

    #[test]
    fn a_secret_with_needless_escapes_is_found() {
        let line =
            "{\"type\":\"user\",\"text\":\"s\\u0065cret/01\\u003234567\\u00389\\\"abcdef\"}\n";
        assert_eq!(filter(&[line.to_owned()]), "{\"type\":\"user\",\"text\":\"[redacted]\"}\n");
    }

    #[test]
    fn everything_else_passes_as_it_is() {
        let lines =
            ["plain\n", "{ no json\n", "{\"b\": 1, \"a\": \"\\u001b[0m\"}\n", "\n", "{\"end\""];
        let lines = lines.map(str::to_owned);
        assert_eq!(filter(&lines), lines.concat());
        let lines = [delta(0, "text", "no more!")];
        assert_eq!(filter(&lines), lines.concat());
    }

    #[test]
    fn pieces_of_a_message_on_its_way_are_left_out() {
        let piece = json!({ "event": { "type": "content_block_delta", "index": 0,
            "delta": { "type": "text_delta", "text": "secr" } }, "type": "stream_event" });
        let other = json!({ "type": "assistant", "text": "a stream_event is \"stream_event\"" });
        let half = "{\"type\":\"stream_event\",\"event\":{\"text\":\"\\ud83d\"}}\n".to_owned();
        let last = json!({ "event": { "type": "message_delta", "usage": { "output_tokens": 7 } },
            "type": "stream_event" });
        let first = json!({ "event": { "type": "message_start", "message": { "id": "msg_1",
            "usage": { "input_tokens": 7 } } }, "type": "stream_event" });
        let lines = [piece, first, other, last].map(|line| format!("{line}\n"));
        assert_eq!(filter(&lines), lines[1..].concat());
        assert_eq!(filter(&[half, lines[0].clone()]), "");
    }

    #[test]
    fn a_pause_gives_out_text_and_keeps_json() {
        let mut filter = JsonLines::new(Redactor::default());
        assert_eq!(filter.push(b"{1}? "), b"");
        assert_eq!(filter.pause(), b"{1}? ");
        assert_eq!(filter.push(b"yes\n{\"type\""), b"yes\n");
        assert_eq!(filter.pause(), b"");
        assert_eq!(filter.finish(), b"{\"type\"");
    }

    proptest! {
        #[test]
        fn whatever_the_pieces_the_joined_text_holds_no_secret(
            before in "[a-z {\"\\\\]{0,6}",
            cuts in prop::collection::vec(1..9usize, 1..30),
            after in "[a-z]{0,6}",
        ) {
            let text = format!("{before}{TOKEN}{after}");
            let (mut lines, mut rest) = (Vec::new(), text.as_str());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (head, tail) = rest.split_at((*cut).min(rest.len()));
                lines.push(delta(3, "text", head));
                rest = tail;
            }
            prop_assert_eq!(
                joined(&filter(&lines), 3, "text"),
                format!("{before}[redacted]{after}")
            );
        }
    }
}
