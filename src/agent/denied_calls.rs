//! Which calls of tools an agent was not allowed to make, by its result lines.

use std::collections::BTreeSet;

use serde_json::Value;

use super::message::text;
use crate::domain::Redactor;

/// Most calls that are remembered of a run; who is refused more often is told the same again.
const MOST: usize = 50;
/// Longest input that is shown, in characters.
const LONGEST_INPUT: usize = 300;

/// A call that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeniedCall {
    /// The tool.
    pub tool: String,
    /// What it was called with: the command of a shell, else JSON.
    pub input: String,
}

/// The calls of a run so far.
#[derive(Debug, Clone, Default)]
pub struct DeniedCalls {
    calls: Vec<DeniedCall>,
    known: BTreeSet<String>,
}

impl DeniedCalls {
    /// Takes a result line. A process may print several, and newer ones may repeat the calls of older ones.
    pub fn hear_result(&mut self, value: &Value) {
        let denials = value.get("permission_denials").and_then(Value::as_array);
        for denial in denials.into_iter().flatten() {
            let is_new = text(denial, "tool_use_id").is_none_or(|id| !self.known.contains(id));
            if !is_new || self.calls.len() >= MOST {
                continue;
            }
            self.known.extend(text(denial, "tool_use_id").map(str::to_owned));
            let input = denial.get("tool_input");
            let command = input.and_then(|input| text(input, "command")).map(str::to_owned);
            self.calls.push(DeniedCall {
                tool: text(denial, "tool_name").unwrap_or("a tool").to_owned(),
                input: command.or_else(|| Some(input?.to_string())).unwrap_or_default(),
            });
        }
    }

    /// The calls, redacted and then short enough for a line: half a secret would not be found.
    pub fn redacted(&self, redactor: &Redactor) -> Vec<DeniedCall> {
        let shorten = |text: &str| {
            let text = redactor.text(text);
            match text.char_indices().nth(LONGEST_INPUT) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        };
        let call = |call: &DeniedCall| DeniedCall {
            tool: shorten(&call.tool),
            input: shorten(&call.input),
        };
        self.calls.iter().map(call).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::DeniedCalls;
    use crate::domain::Redactor;

    #[test]
    fn each_call_is_told_once_without_secrets() {
        let secret = "secret0123456789abcdef";
        let rm = json!({"tool_name": "Bash", "tool_use_id": "1",
            "tool_input": {"command": format!("rm -rf build/* # {secret}"), "description": "x"}});
        let write = json!({"tool_name": "Write", "tool_use_id": "2",
            "tool_input": {"content": format!("{}{secret}", "x".repeat(290))}});
        let mut calls = DeniedCalls::default();
        calls.hear_result(&json!({"type": "result", "permission_denials": [rm]}));
        calls.hear_result(&json!({"type": "result", "permission_denials": [rm, write, {}]}));
        let told = calls.redacted(&Redactor::new([secret.to_owned().into()]));
        let told: Vec<_> = told.iter().map(|call| (&*call.tool, &*call.input)).collect();
        assert_eq!(told[0], ("Bash", "rm -rf build/* # [redacted]"));
        assert_eq!((told[1].0, told[2], told.len()), ("Write", ("a tool", ""), 3));
        assert!(told[1].1.starts_with("{\"content\":\"xxx") && told[1].1.ends_with('…'));
        assert!(!told[1].1.contains("secret"), "{}", told[1].1);
    }
}
