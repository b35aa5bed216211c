//! opencode: `opencode run --format json`.
//!
//! Sources: <https://opencode.ai/docs/cli/> (flags, environment), <https://opencode.ai/docs/config/>
//! (`OPENCODE_CONFIG_CONTENT`), <https://opencode.ai/docs/permissions/>, and of anomalyco/opencode
//! `packages/opencode/src/cli/cmd/run.ts` (the events) and pull request 8093 (`OPENCODE_DISABLE_PROJECT_CONFIG`).
//! It cannot be run in our tests: `tests/data/opencode` holds samples made by hand after these pages.

use serde_json::{Value, json};

use super::{
    Call, Cli, Listener,
    lines::{Ending, Tokens, count, said, text, tool_begins, tool_ended},
};

/// How it is called.
pub struct OpenCode;

impl Cli for OpenCode {
    fn arguments(&self, call: &Call<'_>) -> Vec<String> {
        let mut arguments: Vec<String> = ["run", "--format=json"].map(str::to_owned).into();
        arguments.extend(call.settings.model.iter().map(|model| format!("--model={model}")));
        arguments.extend(call.conversation.iter().map(|name| format!("--session={name}")));
        arguments.extend(call.settings.extra_arguments.iter().cloned());
        arguments
    }

    fn environment(&self, call: &Call<'_>) -> Vec<(String, String)> {
        // Settings in the environment override those of files.
        let settings =
            json!({ "permission": "allow", "share": "disabled", "autoupdate": false }).to_string();
        let folder = |name: &str| call.folder.join(name).display().to_string();
        let mut environment: Vec<(String, String)> = [
            ("OPENCODE_CONFIG_CONTENT", settings),
            ("OPENCODE_DISABLE_AUTOUPDATE", "true".to_owned()),
            ("XDG_DATA_HOME", folder("data")),
            ("XDG_STATE_HOME", folder("state")),
            ("XDG_CONFIG_HOME", folder("config")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if !call.request.trusted {
            // Plugins and servers of the repository would run on our account without a question.
            environment.push(("OPENCODE_DISABLE_PROJECT_CONFIG".to_owned(), "true".to_owned()));
        }
        environment
    }

    fn listener(&self) -> Box<dyn Listener> {
        Box::<Ears>::default()
    }
}

/// Understands its events.
#[derive(Default)]
struct Ears {
    conversation: Option<String>,
    /// The texts since its last tool.
    answer: Vec<String>,
    /// Something was said after the last line that ended a run: versions before 1.15 may leave out the
    /// last line.
    is_open: bool,
    tokens: Tokens,
    cost: Option<f64>,
    turns: u64,
}

impl Ears {
    fn tool(&mut self, part: &Value) -> Vec<Value> {
        self.answer.clear();
        self.is_open = false;
        // It is told when it has ended.
        let state = part.get("state").unwrap_or(&Value::Null);
        let (id, failed) = (text(part, "callID"), text(state, "status") == "error");
        let output = if failed { text(state, "error") } else { text(state, "output") };
        let input = state.get("input").unwrap_or(&Value::Null);
        vec![tool_begins(id, text(part, "tool"), input), tool_ended(id, failed, output)]
    }

    /// One call of the model has ended; the run with it, unless the model asked for tools.
    fn step_finished(&mut self, part: &Value) -> Vec<Value> {
        let tokens = part.get("tokens").unwrap_or(&Value::Null);
        let cache = tokens.get("cache").unwrap_or(&Value::Null);
        let step = Tokens {
            input: count(tokens, "input"),
            output: count(tokens, "output").saturating_add(count(tokens, "reasoning")),
            cache_read: count(cache, "read"),
            cache_creation: count(cache, "write"),
        };
        self.tokens.add(step);
        self.turns += 1;
        if let Some(cost) = part.get("cost").and_then(Value::as_f64) {
            self.cost = Some(self.cost.unwrap_or_default() + cost);
        }
        // For a run that is stopped before it tells its sum.
        let counted = json!({ "type": "assistant", "message": { "id": text(part, "id"), "content": [],
            "usage": step.value() } });
        let stop_reason = match text(part, "reason") {
            "tool-calls" | "tool_use" | "unknown" => return vec![counted],
            "length" => "max_tokens",
            "content-filter" => "refusal",
            _ => "end_turn",
        };
        vec![counted, self.end_well(stop_reason)]
    }

    fn end_well(&mut self, stop_reason: &str) -> Value {
        self.is_open = false;
        let answer = self.answer.join("\n\n");
        Ending { answer: &answer, stop_reason, ..self.ending() }.well()
    }

    fn ending(&self) -> Ending<'static> {
        let (tokens, cost, turns) = (self.tokens, self.cost, self.turns);
        Ending { tokens, cost, turns, ..Ending::default() }
    }
}

impl Listener for Ears {
    fn hear(&mut self, line: &Value) -> Vec<Value> {
        if let Some(name) = line.get("sessionID").and_then(Value::as_str) {
            self.conversation = Some(name.to_owned());
        }
        let part = line.get("part").unwrap_or(&Value::Null);
        match text(line, "type") {
            "text" => {
                let words = text(part, "text");
                self.answer.push(words.trim().to_owned());
                self.is_open = true;
                vec![said(words)]
            }
            "tool_use" => self.tool(part),
            "step_finish" => self.step_finished(part),
            "error" => {
                self.is_open = false;
                let error = line.get("error").unwrap_or(&Value::Null);
                self.ending().with_error(&words_of(error)).into()
            }
            _ => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<Value> {
        if self.is_open { vec![self.end_well("end_turn")] } else { Vec::new() }
    }

    fn conversation(&self) -> Option<&str> {
        self.conversation.as_deref()
    }
}

/// Its error in one line: the name, the status of the provider, the words.
fn words_of(error: &Value) -> String {
    let data = error.get("data").unwrap_or(&Value::Null);
    let status = match data.get("statusCode").and_then(Value::as_u64) {
        Some(status) => format!(" (status {status})"),
        None => String::new(),
    };
    let name = text(error, "name");
    match text(data, "message") {
        "" => format!("{name}{status}"),
        message => format!("{name}{status}: {message}"),
    }
}
