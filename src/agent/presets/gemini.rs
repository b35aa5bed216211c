//! Google's Gemini CLI: `gemini --output-format=stream-json`.
//!
//! Sources: <https://geminicli.com/docs/cli/headless/> (mode, events, exit codes),
//! <https://geminicli.com/docs/cli/cli-reference/> (flags), <https://geminicli.com/docs/cli/session-management>
//! (`--resume`), <https://geminicli.com/docs/reference/configuration> (environment, order of settings),
//! `packages/core/src/output/types.ts` of google-gemini/gemini-cli (the events). It cannot be run in our tests:
//! `tests/data/gemini` holds samples made by hand after these pages. It tells no cost.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{
    Call, Cli, Listener,
    lines::{Ending, Tokens, count, retry, said, text, tool_begins, tool_ended},
};
use crate::{agent::launch::ExitMeaning, domain::ErrorClass};

/// How it is called.
pub struct Gemini;

/// Settings that no file of the repository overrides.
fn settings_file(folder: &Path) -> PathBuf {
    folder.join("system-settings.json")
}

impl Cli for Gemini {
    fn arguments(&self, call: &Call<'_>) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["--output-format=stream-json", "--approval-mode=yolo"].map(str::to_owned).into();
        if !call.request.trusted {
            // Servers and extensions of the repository would run on our account without a question.
            arguments.extend(
                ["--extensions=none", "--allowed-mcp-server-names=none"].map(str::to_owned),
            );
        }
        arguments.extend(call.settings.model.iter().map(|model| format!("--model={model}")));
        arguments.extend(call.conversation.iter().map(|name| format!("--resume={name}")));
        arguments.extend(call.settings.extra_arguments.iter().cloned());
        arguments
    }

    fn environment(&self, call: &Call<'_>) -> Vec<(String, String)> {
        let settings = settings_file(call.folder);
        [
            ("GEMINI_CLI_HOME", call.folder.display().to_string()),
            ("GEMINI_CLI_SYSTEM_SETTINGS_PATH", settings.display().to_string()),
            // Without it there is no run at all in a folder that nobody has marked as trusted.
            ("GEMINI_CLI_TRUST_WORKSPACE", "true".to_owned()),
            ("NO_BROWSER", "true".to_owned()),
            ("NO_COLOR", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn files(&self, call: &Call<'_>) -> Vec<(PathBuf, String)> {
        let hooks = call.request.trusted;
        let text = serde_json::json!({ "general": { "enableAutoUpdate": false },
            "hooksConfig": { "enabled": hooks } });
        vec![(settings_file(call.folder), format!("{text}\n"))]
    }

    fn listener(&self) -> Box<dyn Listener> {
        Box::<Ears>::default()
    }

    fn exit_meaning(&self) -> Option<ExitMeaning> {
        Some(|code| {
            Some(match code {
                41 => (
                    ErrorClass::Auth,
                    "the Gemini CLI has no credential that its provider takes (GEMINI_API_KEY)",
                ),
                42 => {
                    (ErrorClass::Invalid, "the Gemini CLI did not take its arguments or the prompt")
                }
                52 => (ErrorClass::Invalid, "the Gemini CLI did not take its settings"),
                53 => (
                    ErrorClass::MaxTurns,
                    "the Gemini CLI used all its turns before it was done: raise maxSessionTurns in its \
                     settings or split the request",
                ),
                _ => return None,
            })
        })
    }
}

/// Understands its events.
#[derive(Default)]
struct Ears {
    conversation: Option<String>,
    /// The text since its last tool.
    answer: String,
    turns: u64,
    error: String,
}

impl Ears {
    /// What it said so far, as a whole; on the way when a tool follows.
    fn told(&self) -> Option<Value> {
        (!self.answer.trim().is_empty()).then(|| said(&self.answer))
    }

    fn result(&mut self, line: &Value) -> Vec<Value> {
        let stats = line.get("stats").unwrap_or(&Value::Null);
        let cache_read = count(stats, "cached");
        let tokens = Tokens {
            // It counts what came from the cache among the input.
            input: count(stats, "input_tokens").saturating_sub(cache_read),
            output: count(stats, "output_tokens"),
            cache_read,
            cache_creation: 0,
        };
        let answer = std::mem::take(&mut self.answer);
        let turns = self.turns + 1;
        let ending = Ending { answer: answer.trim(), tokens, turns, ..Ending::default() };
        if text(line, "status") == "success" {
            let told = (!answer.trim().is_empty()).then(|| said(&answer));
            return told.into_iter().chain([ending.well()]).collect();
        }
        let error = line.get("error").unwrap_or(&Value::Null);
        let message = match text(error, "message") {
            "" => self.error.as_str(),
            message => message,
        };
        if text(error, "type").contains("TurnLimited") {
            return vec![ending.out_of_turns(message)];
        }
        ending.with_error(message).into()
    }
}

impl Listener for Ears {
    fn hear(&mut self, line: &Value) -> Vec<Value> {
        match text(line, "type") {
            "init" => {
                self.conversation = Some(text(line, "session_id").to_owned());
                Vec::new()
            }
            "message" if text(line, "role") == "assistant" => {
                if line.get("delta").and_then(Value::as_bool) != Some(true) {
                    self.answer.clear();
                }
                self.answer.push_str(text(line, "content"));
                Vec::new()
            }
            "tool_use" if !text(line, "tool_id").is_empty() => {
                let input = line.get("parameters").unwrap_or(&Value::Null);
                let begins = tool_begins(text(line, "tool_id"), text(line, "tool_name"), input);
                let lines = self.told().into_iter().chain([begins]).collect();
                self.answer.clear();
                self.turns += 1;
                lines
            }
            "tool_result" => {
                let failed = text(line, "status") == "error";
                vec![tool_ended(text(line, "tool_id"), failed, text(line, "output"))]
            }
            "error" if text(line, "severity") == "error" => {
                text(line, "message").clone_into(&mut self.error);
                vec![retry(&self.error)]
            }
            "result" => self.result(line),
            _ => Vec::new(),
        }
    }

    fn conversation(&self) -> Option<&str> {
        self.conversation.as_deref()
    }
}
