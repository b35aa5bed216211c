//! Counts what a run consumes, by the messages of its agent.
//!
//! What the Claude CLI prints (tried with 2.1.138 and 2.1.332):
//! - `modelUsage` and `total_cost_usd` of a `result` are totals with those of subagents; a later `result` of the
//!   process has grown ones. 2.1.138 begins at zero with each process, 2.1.332 goes on where the conversation
//!   stood: where its transcript says, to which an interrupted process still writes, and a killed one does not.
//! - `usage` of a `result` leaves subagents out, and what an earlier `result` of the process had.
//! - An `assistant` line has the input of its message and the first tokens of its output; `message_delta`, among
//!   the partial messages, has all of them. There is none for subagents, and the last message of a subagent of
//!   2.1.138 is never printed.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use nix::fcntl::OFlag;
use serde_json::Value;
use uuid::Uuid;

use super::{
    conversation::Conversation, frames::Framer, interpreter::Interpreter, kind::AgentKind,
};
use crate::domain::{ModelUsage, RunUsage, Usage};

/// Most messages whose tokens are remembered.
const MAX_MESSAGES: usize = 100_000;
/// Most subagents that are followed.
const MAX_THREADS: usize = 1024;
/// What the CLI calls the model of messages that it made up itself.
const NO_MODEL: &str = "<synthetic>";
/// How much of a spool is read at a time, in bytes.
const READ: usize = 64 * 1024;

/// Counts along while a run's messages are heard.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    messages: BTreeMap<String, Message>,
    /// The message that is being written, by the call of the subagent that writes it.
    open: BTreeMap<String, Open>,
    reported: Option<Usage>,
    is_of_run: bool,
    num_turns: u64,
}

/// A message of the model.
#[derive(Debug, Clone)]
struct Message {
    model: String,
    usage: ModelUsage,
    has_ended: bool,
    /// A total was reported after it.
    is_reported: bool,
}

/// A message that may not have ended.
#[derive(Debug, Clone)]
struct Open {
    id: String,
    /// Its end will be told.
    streams: bool,
}

impl Meter {
    /// Takes the next message, of the type `kind`.
    pub fn hear(&mut self, kind: &str, value: &Value) {
        let thread = value.get("parent_tool_use_id").and_then(Value::as_str).unwrap_or_default();
        match kind {
            "assistant" => self.hear_message(value.get("message"), thread, false),
            "user" => self.end_unless_told(thread),
            "stream_event" => self.hear_event(value.get("event"), thread),
            "result" => self.hear_result(value),
            _ => {}
        }
    }

    /// What is known so far.
    pub fn usage(&self) -> RunUsage {
        let sum = |choose: &dyn Fn(&Message) -> bool| {
            let mut sum = Usage::default();
            for message in self.messages.values().filter(|message| choose(message)) {
                sum.add(&message.model, message.usage);
            }
            sum
        };
        RunUsage {
            reported: self.reported.clone(),
            is_of_run: self.is_of_run,
            heard: sum(&|message| message.is_reported),
            unreported: sum(&|message| !message.is_reported),
            unreported_ended: sum(&|message| !message.is_reported && message.has_ended),
            num_turns: match self.reported {
                Some(_) => self.num_turns,
                None => self.messages.len() as u64,
            },
        }
    }

    fn hear_event(&mut self, event: Option<&Value>, thread: &str) {
        let Some(event) = event else { return };
        match event.get("type").and_then(Value::as_str) {
            Some("message_start") => self.hear_message(event.get("message"), thread, true),
            Some("message_delta") => {
                let open = self.open.get(thread).map(|open| open.id.clone());
                let message = open.and_then(|id| self.messages.get_mut(&id));
                if let (Some(message), Some(usage)) = (message, event.get("usage")) {
                    message.usage = message.usage.max(parse_tokens(usage));
                    message.has_ended = true;
                }
            }
            _ => {}
        }
    }

    /// A message began, or a part of it came; `streams` when it will be told how it ends.
    fn hear_message(&mut self, message: Option<&Value>, thread: &str, streams: bool) {
        let text = |key| message.and_then(|message| message.get(key)).and_then(Value::as_str);
        let usage = message.and_then(|message| message.get("usage"));
        let (Some(id), Some(usage)) = (text("id"), usage) else { return };
        let model = text("model").unwrap_or_default();
        if model == NO_MODEL {
            return;
        }
        if self.open.get(thread).is_none_or(|open| open.id != id) {
            self.end_unless_told(thread);
            if self.open.contains_key(thread) || self.open.len() < MAX_THREADS {
                self.open.insert(thread.to_owned(), Open { id: id.to_owned(), streams });
            }
        }
        let usage = parse_tokens(usage);
        if let Some(known) = self.messages.get_mut(id) {
            known.usage = known.usage.max(usage);
        } else if self.messages.len() < MAX_MESSAGES {
            let model = model.to_owned();
            let message = Message { model, usage, has_ended: false, is_reported: false };
            self.messages.insert(id.to_owned(), message);
        }
    }

    /// What follows a message says that it has ended, unless that is told.
    fn end_unless_told(&mut self, thread: &str) {
        let Some(open) = self.open.get(thread).filter(|open| !open.streams) else { return };
        if let Some(message) = self.messages.get_mut(&open.id) {
            message.has_ended = true;
        }
    }

    fn hear_result(&mut self, value: &Value) {
        self.num_turns = value.get("num_turns").and_then(Value::as_u64).unwrap_or_default();
        let reported = self.parse_report(value);
        // A report of nothing says nothing: there was no answer of a model, or the agent does not count.
        if !reported.is_zero() {
            self.reported = Some(reported);
            self.is_of_run = value.get("modelUsage").is_none();
            self.messages.values_mut().for_each(|message| message.is_reported = true);
        }
    }

    fn parse_report(&self, value: &Value) -> Usage {
        let mut report = Usage::default();
        let models = value.get("modelUsage").and_then(Value::as_object);
        for (model, told) in models.into_iter().flatten() {
            report.add(model, self.parse_model(model, told));
        }
        let cost = value.get("total_cost_usd").and_then(Value::as_f64).unwrap_or_default();
        let tokens = value.get("usage").map(parse_tokens).unwrap_or_default();
        if report.is_zero() {
            report.add(self.only_model(), ModelUsage { cost_usd: cost, ..tokens }.believable());
        }
        report
    }

    /// What is told of a model. Older versions do not tell the kinds of writes to the cache apart: the messages
    /// do, and of what nobody heard they have the usual kind.
    fn parse_model(&self, model: &str, told: &Value) -> ModelUsage {
        let tokens = |key| told.get(key).and_then(Value::as_u64);
        let written = tokens("cacheCreationInputTokens").unwrap_or_default();
        let hour = tokens("cacheCreationEphemeral1hInputTokens").unwrap_or_else(|| {
            let is_same = |message: &&Message| model.starts_with(&message.model);
            let heard = self.messages.values().filter(is_same);
            heard.map(|message| message.usage.cache_creation_1h_tokens).fold(0, u64::saturating_add)
        });
        ModelUsage {
            input_tokens: tokens("inputTokens").unwrap_or_default(),
            output_tokens: tokens("outputTokens").unwrap_or_default(),
            cache_read_tokens: tokens("cacheReadInputTokens").unwrap_or_default(),
            cache_creation_5m_tokens: written.saturating_sub(hour),
            cache_creation_1h_tokens: hour.min(written),
            cost_usd: told.get("costUSD").and_then(Value::as_f64).unwrap_or_default(),
            estimated_usd: 0.0,
        }
    }

    /// The model, as long as there is one.
    fn only_model(&self) -> &str {
        let mut models = self.messages.values().map(|message| message.model.as_str());
        let first = models.next().unwrap_or_default();
        if models.all(|model| model == first) { first } else { "" }
    }
}

/// The tokens of a message, as the provider tells them.
fn parse_tokens(value: &Value) -> ModelUsage {
    let tokens = |value: &Value, key| value.get(key).and_then(Value::as_u64).unwrap_or_default();
    let kinds = value.get("cache_creation");
    let hour = kinds.map_or(0, |kinds| tokens(kinds, "ephemeral_1h_input_tokens"));
    let written = tokens(value, "cache_creation_input_tokens");
    ModelUsage {
        input_tokens: tokens(value, "input_tokens"),
        output_tokens: tokens(value, "output_tokens"),
        cache_read_tokens: tokens(value, "cache_read_input_tokens"),
        cache_creation_5m_tokens: written.saturating_sub(hour),
        cache_creation_1h_tokens: hour.min(written),
        ..ModelUsage::default()
    }
}

/// What the output of an ended run of `agent` shows that nobody listened to until its end, and the conversation it had.
///
/// # Errors
///
/// When the file cannot be read, or is none.
pub fn spooled_usage(agent: &AgentKind, spool: &Path) -> io::Result<(RunUsage, Option<Uuid>)> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(spool)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(format!("{} is no file", spool.display())));
    }
    let mut interpreter = Interpreter::of(match agent {
        AgentKind::Preset(settings) => Some(settings.preset),
        AgentKind::Claude(_) | AgentKind::Command(_) => None,
    });
    let (mut conversation, mut framer) = (Conversation::default(), Framer::default());
    let mut buffer = vec![0; READ];
    loop {
        let read = file.read(&mut buffer)?;
        for frame in framer.push(&buffer[..read]) {
            interpreter.hear(&frame, &mut conversation);
        }
        if read == 0 {
            break;
        }
    }
    // A last line without its end is half of one: whoever wrote it was killed.
    Ok((conversation.usage(), conversation.session))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Meter;
    use crate::domain::{ModelUsage, RunUsage};

    fn heard(lines: &[Value]) -> RunUsage {
        let mut meter = Meter::default();
        for line in lines {
            meter.hear(line["type"].as_str().unwrap(), line);
        }
        meter.usage()
    }

    /// The usage of message `n`, of whose output so much is known.
    fn usage(n: u64, output: u64) -> Value {
        json!({"input_tokens": n, "output_tokens": output, "cache_read_input_tokens": 10 * n,
            "cache_creation_input_tokens": 5 * n,
            "cache_creation": {"ephemeral_5m_input_tokens": 2 * n, "ephemeral_1h_input_tokens": 3 * n}})
    }

    fn message(n: u64) -> Value {
        json!({"id": format!("msg_{n}"), "model": "claude-a", "content": [], "usage": usage(n, 1)})
    }

    fn assistant(n: u64, parent: Option<&str>) -> Value {
        json!({"type": "assistant", "message": message(n), "parent_tool_use_id": parent})
    }

    fn start(n: u64) -> Value {
        json!({"type": "stream_event", "event": {"type": "message_start", "message": message(n)}})
    }

    fn delta(n: u64) -> Value {
        let event = json!({"type": "message_delta", "usage": usage(n, 7 * n)});
        json!({"type": "stream_event", "event": event, "parent_tool_use_id": null})
    }

    fn user() -> Value {
        json!({"type": "user", "parent_tool_use_id": null})
    }

    fn tokens(usage: ModelUsage) -> [u64; 5] {
        [
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_creation_5m_tokens,
            usage.cache_creation_1h_tokens,
        ]
    }

    #[test]
    fn a_message_of_many_lines_counts_once_with_its_whole_output() {
        let lines =
            [start(10), assistant(10, None), assistant(10, None), delta(10), user(), start(1)];
        let usage = heard(&lines);
        assert_eq!(tokens(usage.unreported.total()), [11, 71, 110, 22, 33]);
        assert_eq!(tokens(usage.unreported_ended.total()), [10, 70, 100, 20, 30]);
        assert_eq!(usage.num_turns, 2);
    }

    #[test]
    fn without_partial_messages_what_follows_says_that_a_message_has_ended() {
        let usage = heard(&[assistant(10, None), user(), assistant(1, None)]);
        assert_eq!(tokens(usage.unreported.total()), [11, 2, 110, 22, 33]);
        assert_eq!(tokens(usage.unreported_ended.total()), [10, 1, 100, 20, 30]);
    }

    #[test]
    fn a_subagent_does_not_end_the_message_that_called_it() {
        let lines =
            [assistant(10, None), assistant(1, Some("toolu_1")), assistant(2, Some("toolu_1"))];
        let usage = heard(&lines);
        assert_eq!(tokens(usage.unreported.total()), [13, 3, 130, 26, 39]);
        assert_eq!(tokens(usage.unreported_ended.total()), [1, 1, 10, 2, 3]);
    }

    #[test]
    fn the_last_report_counts_and_what_came_after_it() {
        let result = |input: u64| {
            let told = json!({"inputTokens": input, "outputTokens": 5, "cacheReadInputTokens": 6,
                "cacheCreationInputTokens": 90, "costUSD": 0.25});
            json!({"type": "result", "num_turns": 2, "total_cost_usd": 0.25,
                "usage": usage(1, 1), "modelUsage": {"claude-a[1m]": told}})
        };
        let lines = [assistant(10, None), result(10), assistant(2, None), result(12), start(3)];
        let usage = heard(&lines);
        let reported = usage.reported.as_ref().unwrap().total();
        // 36 were heard to be kept for an hour.
        assert_eq!(tokens(reported), [12, 5, 6, 54, 36]);
        assert!((reported.cost_usd - 0.25).abs() < 1e-9 && usage.num_turns == 2);
        assert_eq!(tokens(usage.heard.total()), [12, 2, 120, 24, 36]);
        assert_eq!(tokens(usage.unreported.total()), [3, 1, 30, 6, 9]);
        assert!(usage.unreported_ended.is_zero());
    }

    #[test]
    fn an_agent_without_figures_by_model_is_believed_its_total() {
        let lines = [
            assistant(10, None),
            json!({"type": "result", "total_cost_usd": 0.5, "usage": usage(40, 2)}),
        ];
        let usage = heard(&lines);
        let reported = usage.reported.as_ref().unwrap();
        assert_eq!(tokens(reported.total()), [40, 2, 400, 80, 120]);
        assert_eq!(reported.models().next().unwrap().0, "claude-a");
        assert!(
            usage.is_of_run,
            "only the Claude CLI has totals of a conversation, and it tells models apart"
        );
    }

    #[test]
    fn a_report_of_nothing_does_not_hide_what_was_heard() {
        let nothing = json!({"type": "result", "total_cost_usd": 0, "modelUsage": {}, "usage": {}});
        let usage = heard(&[assistant(10, None), nothing]);
        assert_eq!((usage.reported, usage.unreported.total().input_tokens), (None, 10));
    }
}
