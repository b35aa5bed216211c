//! OpenAI's Codex CLI: `codex exec --json`.
//!
//! Sources: <https://developers.openai.com/codex/noninteractive> (mode, events, `CODEX_API_KEY`, `resume`),
//! <https://developers.openai.com/codex/config-basic> (`CODEX_HOME`, projects that are trusted),
//! `codex-rs/exec/src/exec_events.rs` and `event_processor_with_jsonl_output.rs` of openai/codex (the events).
//! It cannot be run in our tests: `tests/data/codex` holds samples made by hand after these pages.

use std::{collections::BTreeSet, path::PathBuf};

use serde_json::{Value, json};

use super::{
    Call, Cli, Listener,
    lines::{Ending, Tokens, count, retry, said, text, tool_begins, tool_ended},
};

/// Its turn ends with an error, or goes on, after an event that begins so.
const GOES_ON: &str = "Reconnecting";
/// Items that are something the agent does, not something it says.
const TOOLS: [&str; 5] =
    ["command_execution", "file_change", "mcp_tool_call", "collab_tool_call", "web_search"];

/// How it is called.
pub struct Codex;

impl Cli for Codex {
    fn arguments(&self, call: &Call<'_>) -> Vec<String> {
        let mut arguments: Vec<String> = [
            "exec",
            "--json",
            "--color=never",
            "--skip-git-repo-check",
            // We shut it in ourselves; its own sandbox would need what ours takes away.
            "--dangerously-bypass-approvals-and-sandbox",
        ]
        .map(str::to_owned)
        .into();
        arguments.extend(call.settings.model.iter().map(|model| format!("--model={model}")));
        arguments.extend(call.settings.extra_arguments.iter().cloned());
        if let Some(conversation) = call.conversation {
            arguments.extend(["resume".to_owned(), conversation.to_owned()]);
        }
        // The prompt is read from standard input.
        arguments.push("-".to_owned());
        arguments
    }

    fn environment(&self, call: &Call<'_>) -> Vec<(String, String)> {
        vec![("CODEX_HOME".to_owned(), call.folder.display().to_string())]
    }

    fn files(&self, call: &Call<'_>) -> Vec<(PathBuf, String)> {
        // Of a trusted project it takes settings, hooks and servers. Older versions trust every folder in
        // which they may do everything, unless this says otherwise.
        let level = if call.request.trusted { "trusted" } else { "untrusted" };
        let project = Value::from(call.request.checkout.display().to_string());
        let text = format!("[projects.{project}]\ntrust_level = \"{level}\"\n");
        vec![(call.folder.join("config.toml"), text)]
    }

    fn listener(&self) -> Box<dyn Listener> {
        Box::<Ears>::default()
    }
}

/// Understands its events.
#[derive(Default)]
struct Ears {
    conversation: Option<String>,
    /// The last message, unless it did something after it.
    answer: String,
    open: BTreeSet<String>,
    messages: u64,
}

impl Ears {
    fn item(&mut self, item: &Value, ended: bool) -> Vec<Value> {
        let (id, kind) = (text(item, "id"), text(item, "type"));
        match kind {
            "agent_message" if ended => {
                text(item, "text").clone_into(&mut self.answer);
                self.messages += 1;
                vec![said(&self.answer)]
            }
            _ if TOOLS.contains(&kind) && !id.is_empty() => {
                let mut lines = Vec::new();
                if !self.open.contains(id) {
                    self.answer.clear();
                    self.open.insert(id.to_owned());
                    lines.push(tool_begins(id, kind, &input(item)));
                }
                if ended {
                    self.open.remove(id);
                    let failed = ["failed", "declined"].contains(&text(item, "status"));
                    lines.push(tool_ended(id, failed, text(item, "aggregated_output")));
                }
                lines
            }
            _ => Vec::new(),
        }
    }

    fn ending(&self) -> Ending<'_> {
        Ending { answer: &self.answer, turns: self.messages, ..Ending::default() }
    }
}

impl Listener for Ears {
    fn hear(&mut self, line: &Value) -> Vec<Value> {
        let item = line.get("item").unwrap_or(&Value::Null);
        match text(line, "type") {
            "thread.started" => {
                self.conversation = Some(text(line, "thread_id").to_owned());
                Vec::new()
            }
            "item.started" => self.item(item, false),
            "item.completed" => self.item(item, true),
            "turn.completed" => {
                let usage = line.get("usage").unwrap_or(&Value::Null);
                // It counts what came from the cache among the input.
                let cache_read = count(usage, "cached_input_tokens");
                let tokens = Tokens {
                    input: count(usage, "input_tokens").saturating_sub(cache_read),
                    output: count(usage, "output_tokens"),
                    cache_read,
                    cache_creation: 0,
                };
                vec![with_totals(Ending { tokens, ..self.ending() }.well(), tokens)]
            }
            "turn.failed" => {
                let error = line.get("error").unwrap_or(&Value::Null);
                self.ending().with_error(text(error, "message")).into()
            }
            "error" => {
                let message = text(line, "message");
                let message = message.strip_prefix(GOES_ON).unwrap_or(message);
                vec![retry(message)]
            }
            _ => Vec::new(),
        }
    }

    fn conversation(&self) -> Option<&str> {
        self.conversation.as_deref()
    }
}

/// The end with its tokens as totals of the conversation, which they are: a run that goes on with one has to
/// be told from those before it (issues 17539 of openai/codex and 661 of gitmoot/gitmoot).
fn with_totals(mut line: Value, tokens: Tokens) -> Value {
    line["modelUsage"] = json!({ "codex": { "inputTokens": tokens.input, "outputTokens": tokens.output,
        "cacheReadInputTokens": tokens.cache_read } });
    line
}

/// What a tool was called with.
fn input(item: &Value) -> Value {
    let members = ["command", "changes", "server", "tool", "arguments", "query"];
    let found =
        members.iter().filter_map(|name| Some(((*name).to_owned(), item.get(name)?.clone())));
    Value::Object(found.collect())
}
