//! What an agent says about its own run, collected from its output line by line.
//!
//! Tolerant on purpose: the format belongs to somebody else. Lines that are no JSON object and
//! types and keys that are not known are skipped, and a key of an unexpected kind counts as absent.

use std::collections::BTreeSet;

use serde_json::Value;
use uuid::Uuid;

use super::{frames::Frame, usage::Meter};
use crate::domain::RunUsage;

/// Longest answer that is kept, in bytes; of a longer one the end, where the conclusion stands.
pub const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// Most tool calls that are tracked at a time, so that a stream of calls costs no memory.
const MAX_OPEN_TOOLS: usize = 1024;

/// The facts of a run so far.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// The id of the conversation.
    pub session: Option<Uuid>,
    /// The last `result` line.
    pub result: Option<ResultLine>,
    /// The last error of the provider that was reported, by a retry or instead of an answer.
    pub provider_error: Option<ProviderError>,
    /// When the provider's limit ends, in seconds since 1970.
    pub limit_resets_at: Option<u64>,
    /// A line was longer than the limit.
    pub truncated: bool,
    /// At least one line was of the kind only a stream of JSON messages has.
    pub speaks_json: bool,
    open_tools: BTreeSet<String>,
    last_text: String,
    plain: Vec<u8>,
    meter: Meter,
}

/// The line with which the agent ends its run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResultLine {
    /// `success`, `error_max_turns`, ...; says `success` for refused calls too.
    pub subtype: String,
    /// Whether it is an error all the same.
    pub is_error: bool,
    /// The final answer, or the text of the error.
    pub text: Option<String>,
    /// Errors of the subtypes that are errors.
    pub errors: Vec<String>,
    /// HTTP status of the provider, when that was the error.
    pub status: Option<u16>,
    /// Names of tools that the agent was not allowed to use.
    pub denied: Vec<String>,
}

/// An error of the model provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderError {
    /// Its HTTP status.
    pub status: Option<u16>,
    /// Its name, such as `authentication_failed`, `rate_limit`, `overloaded`.
    pub name: String,
    /// What the agent says of it; nothing of one that it tries again.
    pub said: String,
}

impl ProviderError {
    /// Whether the credential was refused, which no retry cures.
    pub fn refuses_credential(&self) -> bool {
        self.name == "authentication_failed" || self.status == Some(401)
    }
}

impl Conversation {
    /// Takes the next line.
    pub fn hear(&mut self, frame: &Frame) {
        self.truncated |= frame.truncated;
        let value = if frame.truncated { None } else { parse_object(&frame.bytes) };
        let message = value.as_ref().and_then(|value| Some((text(value, "type")?, value)));
        // A program that prints text may print an object with a type of its own, too.
        self.speaks_json |= message.is_some_and(|(kind, value)| match kind {
            "assistant" => value.get("message").is_some(),
            "system" | "result" => value.get("subtype").is_some(),
            _ => false,
        });
        match message {
            Some((kind, value)) if self.speaks_json => self.hear_object(kind, value),
            _ => self.hear_plain(&frame.bytes),
        }
    }

    /// Whether a tool runs whose result has not been seen: silence is then no sign of a stall.
    pub fn tool_is_running(&self) -> bool {
        !self.open_tools.is_empty()
    }

    /// The final answer: that of the result, else the last text, else everything printed.
    pub fn answer(&self) -> String {
        let result = self.result.as_ref().and_then(|result| result.text.clone());
        let text = match result.filter(|text| !text.is_empty()) {
            Some(text) => text,
            None if self.speaks_json => self.last_text.clone(),
            None => String::from_utf8_lossy(&self.plain).into_owned(),
        };
        let start = text.len().saturating_sub(MAX_ANSWER);
        let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(start);
        // The database's text cannot hold NUL.
        text[start..].replace('\0', "\u{fffd}")
    }

    /// What was consumed.
    pub fn usage(&self) -> RunUsage {
        self.meter.usage()
    }

    fn hear_plain(&mut self, line: &[u8]) {
        self.plain.extend_from_slice(line);
        self.plain.push(b'\n');
        if self.plain.len() > 2 * MAX_ANSWER {
            self.plain.drain(..self.plain.len() - MAX_ANSWER);
        }
    }

    fn hear_object(&mut self, kind: &str, value: &Value) {
        if let Some(session) = text(value, "session_id").and_then(|id| id.parse().ok()) {
            self.session = Some(session);
        }
        self.meter.hear(kind, value);
        match kind {
            "assistant" => self.hear_assistant(value),
            "user" => {
                for block in blocks(value) {
                    if let Some(id) = text(block, "tool_use_id") {
                        self.open_tools.remove(id);
                    }
                }
            }
            "system" if text(value, "subtype") == Some("api_retry") => {
                self.hear_error(value, number(value, "error_status"), "");
            }
            "rate_limit_event" => {
                let info = value.get("rate_limit_info");
                let rejected = info.and_then(|info| text(info, "status")) == Some("rejected");
                self.limit_resets_at =
                    info.filter(|_| rejected).and_then(|info| info.get("resetsAt")?.as_u64());
            }
            "result" => self.result = Some(parse_result(value)),
            _ => {}
        }
    }

    fn hear_assistant(&mut self, value: &Value) {
        let mut told = "";
        for block in blocks(value) {
            match text(block, "type") {
                Some("text") => {
                    if let Some(said) = text(block, "text") {
                        said.clone_into(&mut self.last_text);
                        told = said;
                    }
                }
                Some("tool_use") if self.open_tools.len() < MAX_OPEN_TOOLS => {
                    self.open_tools.extend(text(block, "id").map(str::to_owned));
                }
                _ => {}
            }
        }
        if value.get("error").is_some_and(Value::is_string) {
            self.hear_error(value, None, told);
        } else {
            // An answer means that whatever a retry complained about has passed.
            self.provider_error = None;
        }
    }

    fn hear_error(&mut self, value: &Value, status: Option<u16>, said: &str) {
        if let Some(name) = text(value, "error") {
            // The final line repeats the name without the status.
            let status = status
                .or_else(|| self.provider_error.as_ref().filter(|last| last.name == name)?.status);
            let (name, said) = (name.to_owned(), said.to_owned());
            self.provider_error = Some(ProviderError { status, name, said });
        }
    }
}

fn parse_result(value: &Value) -> ResultLine {
    let list = |key| value.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    ResultLine {
        subtype: text(value, "subtype").unwrap_or_default().to_owned(),
        is_error: value.get("is_error").and_then(Value::as_bool).unwrap_or_default(),
        text: text(value, "result").map(str::to_owned),
        errors: list("errors").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        status: number(value, "api_error_status"),
        denied: list("permission_denials")
            .iter()
            .map(|denial| text(denial, "tool_name").unwrap_or("a tool").to_owned())
            .collect(),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}

fn number(value: &Value, key: &str) -> Option<u16> {
    value.get(key)?.as_u64()?.try_into().ok()
}

fn blocks(value: &Value) -> impl Iterator<Item = &Value> {
    let content = value.get("message").and_then(|message| message.get("content"));
    content.and_then(Value::as_array).into_iter().flatten()
}

/// Reads a line as a JSON object. Bytes that JSON forbids but programs print (invalid UTF-8, raw
/// control characters, half a surrogate pair) are replaced first if need be.
fn parse_object(line: &[u8]) -> Option<Value> {
    if line.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let value: Value = serde_json::from_slice(line)
        .or_else(|_| serde_json::from_str(&mended(&String::from_utf8_lossy(line))))
        .ok()?;
    value.is_object().then_some(value)
}

/// The text with control characters and lone surrogates replaced.
fn mended(line: &str) -> String {
    let surrogate = |at: usize| {
        let digits = line.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok().filter(|unit| (0xd800..0xe000).contains(unit))
    };
    let mut out = String::with_capacity(line.len());
    let mut at = 0;
    while let Some(next) = line[at..].chars().next() {
        let width = match (next, surrogate(at)) {
            ('\\', Some(first)) => {
                let pair = first < 0xdc00 && surrogate(at + 6).is_some_and(|s| s >= 0xdc00);
                let width = if pair { 12 } else { 6 };
                out.push_str(if pair { &line[at..at + width] } else { "\\ufffd" });
                width
            }
            // The next character belongs to the escape, also when it is a backslash.
            ('\\', None) => {
                let escape = line[at + 1..].chars().next().map_or(1, |c| 1 + c.len_utf8());
                out.push_str(&line[at..at + escape]);
                escape
            }
            (c, _) => {
                out.push(if c.is_control() { ' ' } else { c });
                c.len_utf8()
            }
        };
        at += width;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Conversation, Frame};

    fn hear(lines: &[&[u8]]) -> Conversation {
        let mut conversation = Conversation::default();
        for line in lines {
            conversation.hear(&Frame { bytes: line.to_vec(), truncated: false });
        }
        conversation
    }

    #[test]
    fn noise_and_unknown_lines_are_skipped() {
        let heard = hear(&[
            b"debug: starting",
            b"{\"type\":\"hologram\",\"x\":1}",
            b"{\"type\":7}",
            b"[1]",
            br#"{"type":"result","subtype":"success","num_turns":"many","result":"ok"}"#,
            b"{\"type\":\"hologram\",\"x\":1}",
        ]);
        assert_eq!(heard.answer(), "ok");
        assert_eq!(heard.usage().num_turns, 0);
    }

    #[test]
    fn bytes_that_json_forbids_do_not_lose_the_line() {
        for line in [
            &br#"{"type":"result","subtype":"success","result":"a\ud800b \ud83d\ude00 \\ud800"}"#[..],
            b"{\"type\":\"result\",\"subtype\":\"success\",\"result\":\"a\x00b\xff\"}",
        ] {
            let heard = hear(&[line]);
            assert!(heard.result.is_some(), "{}", String::from_utf8_lossy(line));
        }
        let heard =
            hear(&[br#"{"type":"result","subtype":"","result":"\ud83d\ude00 \udc00 \\ud800"}"#]);
        assert_eq!(heard.answer(), "\u{1f600} \u{fffd} \\ud800");
    }

    #[test]
    fn plain_output_is_the_answer_of_a_program_that_speaks_no_json() {
        assert_eq!(hear(&[b"one", b"two\0"]).answer(), "one\ntwo\u{fffd}\n");
        let manifest = b"{\"type\": \"module\"}";
        assert_eq!(hear(&[manifest]).answer().as_bytes().trim_ascii_end(), manifest);
    }

    #[test]
    fn a_tool_runs_from_its_call_to_its_result() {
        let call = br#"{"type":"assistant","message":{"content":[{"type":"tool_use","id":"t"}]}}"#;
        let result =
            br#"{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t"}]}}"#;
        assert!(hear(&[call]).tool_is_running());
        assert!(!hear(&[call, result]).tool_is_running());
    }
}
