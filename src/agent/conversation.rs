//! What an agent says about its own run, collected from its output line by line.
//!
//! Tolerant on purpose: the format belongs to somebody else. Lines that are no JSON object and
//! types and keys that are not known are skipped, and a key of an unexpected kind counts as absent.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::{
    answer::{Answer, MAX_ANSWER, end_of},
    denied_calls::DeniedCalls,
    frames::Frame,
    message::{blocks, parse_object, text},
    open_work::OpenWork,
    usage::Meter,
};
use crate::domain::RunUsage;

/// The facts of a run so far.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// The id of the conversation.
    pub session: Option<Uuid>,
    /// The `result` line, unless something followed it: both CLIs print one while a task of theirs still
    /// runs in the background, and go on when that has ended.
    pub result: Option<ResultLine>,
    /// How many `result` lines came.
    pub results: u64,
    /// The last error of the provider that was reported, by a retry or instead of an answer.
    pub provider_error: Option<ProviderError>,
    /// The account's usage limit that was reached, by the provider's last word about it.
    pub usage_limit: Option<UsageLimit>,
    /// A line was longer than the limit.
    pub truncated: bool,
    /// At least one line was of the kind only a stream of JSON messages has.
    pub speaks_json: bool,
    /// What it was not allowed to do.
    pub denied: DeniedCalls,
    taken_back: Option<ResultLine>,
    work: OpenWork,
    answer: Answer,
    model_spoke: bool,
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
    /// The type in the provider's own error, such as `overloaded_error`.
    pub error_type: String,
    /// Why the model stopped: `end_turn`, `refusal`, `max_tokens`, ...
    pub stop_reason: String,
    /// Why the agent stopped: `completed`, `api_error`, `hook_stopped`, ...; older ones do not say.
    pub terminal_reason: String,
    /// The model was not asked at all, as when a hook held the request back.
    pub unasked: bool,
}

/// A usage limit of the account that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageLimit {
    /// When it ends, in seconds since 1970.
    pub resets_at: Option<u64>,
}

/// An error of the model provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProviderError {
    /// Its HTTP status.
    pub status: Option<u16>,
    /// Its name, such as `authentication_failed`, `rate_limit`, `overloaded`.
    pub name: String,
    /// The type in the provider's own error, such as `overloaded_error`.
    pub error_type: String,
    /// What the agent says of it; nothing of one that it tries again.
    pub said: String,
    /// How long the agent waits before it tries again, when it does.
    pub wait: Option<Duration>,
}

impl ProviderError {
    /// Whether the credential was refused and is tried again, which cures nothing. An agent that has
    /// words for it is at its end by itself, and they hold the reason.
    pub fn refuses_credential(&self) -> bool {
        let refused = self.name == "authentication_failed" || self.status == Some(401);
        refused && self.said.is_empty()
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

    /// Whether a tool or a task runs whose end has not been seen: silence is then no sign of a stall, and a
    /// result not the end.
    pub fn work_is_open(&self) -> bool {
        self.work.is_any()
    }

    /// The last `result` line, whatever followed it.
    pub fn last_result(&self) -> Option<&ResultLine> {
        self.result.as_ref().or(self.taken_back.as_ref())
    }

    /// The answer: that of the messages, else everything printed.
    pub fn answer(&self) -> String {
        let text = if self.speaks_json { self.answer.text() } else { self.printed() };
        // The database's text cannot hold NUL.
        text.replace('\0', "\u{fffd}")
    }

    /// What it said or printed last, whatever it was; for a sentence about a run that failed.
    pub fn last_words(&self) -> String {
        let result = self.last_result().and_then(|result| result.text.clone());
        match result.filter(|text| !text.is_empty()) {
            Some(text) => text,
            None if self.speaks_json => self.last_text.clone(),
            None => self.printed(),
        }
    }

    /// What was consumed.
    pub fn usage(&self) -> RunUsage {
        self.meter.usage()
    }

    fn printed(&self) -> String {
        end_of(&String::from_utf8_lossy(&self.plain)).to_owned()
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
        self.work.hear(kind, value);
        self.answer.hear(kind, value);
        let is_woken = kind == "system" && text(value, "subtype") == Some("init");
        if matches!(kind, "assistant" | "user") || is_woken {
            self.taken_back = self.result.take().or(self.taken_back.take());
        }
        match kind {
            "assistant" => self.hear_assistant(value),
            "system" if text(value, "subtype") == Some("api_retry") => {
                self.hear_error(value, number(value, "error_status"), "");
            }
            "rate_limit_event" => {
                let info = value.get("rate_limit_info");
                let rejected = info.and_then(|info| text(info, "status")) == Some("rejected");
                self.usage_limit = info.filter(|_| rejected).map(|info| UsageLimit {
                    resets_at: info.get("resetsAt").and_then(Value::as_u64),
                });
            }
            "result" => {
                let unasked =
                    !self.model_spoke && value.get("stop_reason").is_some_and(Value::is_null);
                self.result = Some(ResultLine { unasked, ..parse_result(value) });
                self.results += 1;
                self.denied.hear_result(value);
            }
            _ => {}
        }
    }

    fn hear_assistant(&mut self, value: &Value) {
        self.model_spoke = true;
        let mut told = "";
        for block in blocks(value).filter(|block| text(block, "type") == Some("text")) {
            if let Some(said) = text(block, "text") {
                said.clone_into(&mut self.last_text);
                told = said;
            }
        }
        if value.get("error").is_some_and(Value::is_string) {
            self.hear_error(value, number(value, "api_error_status"), told);
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
            self.provider_error = Some(ProviderError {
                status,
                name: name.to_owned(),
                error_type: text(value, "api_error_type").unwrap_or_default().to_owned(),
                said: said.to_owned(),
                wait: wait(value),
            });
        }
    }
}

/// How long the agent waits before it tries again; older versions count in parts of milliseconds.
fn wait(retry: &Value) -> Option<Duration> {
    let seconds = retry.get("retry_delay_ms")?.as_f64()? / 1000.0;
    Duration::try_from_secs_f64(seconds).ok()
}

fn parse_result(value: &Value) -> ResultLine {
    let list = |key| value.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let word = |key| text(value, key).unwrap_or_default().to_owned();
    ResultLine {
        subtype: word("subtype"),
        is_error: value.get("is_error").and_then(Value::as_bool).unwrap_or_default(),
        text: text(value, "result").map(str::to_owned),
        errors: list("errors").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        status: number(value, "api_error_status"),
        error_type: word("api_error_type"),
        stop_reason: word("stop_reason"),
        terminal_reason: word("terminal_reason"),
        unasked: false,
    }
}

fn number(value: &Value, key: &str) -> Option<u16> {
    value.get(key)?.as_u64()?.try_into().ok()
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
    fn a_result_is_taken_back_by_what_follows_it() {
        let result = br#"{"type":"result","subtype":"success","result":"waiting"}"#;
        let woken = br#"{"type":"system","subtype":"init"}"#;
        for goes_on in [
            &br#"{"type":"assistant","message":{"content":[{"type":"text","text":"two"}]}}"#[..],
            br#"{"type":"user","message":{"content":[]}}"#,
            woken,
        ] {
            let heard = hear(&[result, goes_on]);
            assert_eq!(heard.result, None, "{}", String::from_utf8_lossy(goes_on));
            assert_eq!(heard.last_result().unwrap().text.as_deref(), Some("waiting"));
        }
        let hook = br#"{"type":"system","subtype":"hook_response"}"#;
        assert!(hear(&[result, hook]).result.is_some());
        let end = br#"{"type":"result","subtype":"success","result":"done"}"#;
        let heard = hear(&[result, woken, end]);
        assert_eq!(heard.result.as_ref().unwrap().text.as_deref(), Some("done"));
        assert_eq!((heard.results, heard.answer().as_str()), (2, "waiting\n\ndone"));
    }

    #[test]
    fn the_last_words_of_a_run_without_a_result_are_what_it_said_last() {
        let said = br#"{"type":"assistant","message":{"content":[{"type":"text","text":"so"}]}}"#;
        assert_eq!(hear(&[said]).last_words(), "so");
        assert_eq!(hear(&[b"boom"]).last_words(), "boom\n");
    }

    #[test]
    fn a_refused_credential_is_cut_short_only_while_it_is_tried_again() {
        let retry = br#"{"type":"system","subtype":"api_retry","error_status":401,"error":"authentication_failed"}"#;
        let told = br#"{"type":"assistant","error":"authentication_failed","api_error_status":403,"message":{"content":[{"type":"text","text":"403 archived"}]}}"#;
        for (lines, expected) in
            [(&[&retry[..]][..], true), (&[told], false), (&[retry, told], false)]
        {
            let error = hear(lines).provider_error.unwrap();
            assert_eq!(error.refuses_credential(), expected, "{error:?}");
        }
        assert_eq!(hear(&[told]).provider_error.unwrap().status, Some(403));
    }
}
