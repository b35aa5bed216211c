//! The lines of codex, gemini and opencode for a person, each taken by itself.

use console::style;
use serde_json::Value;

use super::{
    log_view::SUMMARY,
    output::{first_line, plain},
};

/// What a line says; nothing when it only says that the agent lives.
pub(super) fn said(line: &Value) -> Vec<String> {
    let text = |pointer: &str| line.pointer(pointer).and_then(Value::as_str);
    let kind = text("/type").unwrap_or_default();
    match (kind, text("/item/type")) {
        // codex
        ("item.completed", Some("agent_message")) => words(text("/item/text")),
        ("item.started", Some("command_execution")) => {
            called("command", line.pointer("/item/command"))
        }
        ("item.completed", Some("file_change")) => {
            called("file_change", line.pointer("/item/changes"))
        }
        ("item.completed", Some("command_execution")) => {
            answered(text("/item/status") == Some("failed"), text("/item/aggregated_output"))
        }
        ("turn.failed", _) => failed(text("/error/message")),
        ("turn.completed", _) => ended("success"),
        // gemini
        ("message", _) if text("/role") == Some("assistant") => words(text("/content")),
        ("tool_use", _) if line.get("part").is_none() => {
            called(text("/tool_name").unwrap_or("tool"), line.get("parameters"))
        }
        ("tool_result", _) => answered(text("/status") == Some("error"), text("/output")),
        ("result", _) => match text("/error/message") {
            Some(message) => failed(Some(message)),
            None => ended(text("/status").unwrap_or("unknown")),
        },
        // opencode
        ("text", _) => words(text("/part/text")),
        ("tool_use", _) => {
            let mut lines =
                called(text("/part/tool").unwrap_or("tool"), line.pointer("/part/state/input"));
            let error = text("/part/state/error");
            lines.extend(answered(error.is_some(), error.or(text("/part/state/output"))));
            lines
        }
        // codex and gemini tell a message, opencode an object
        ("error", _) => {
            failed(text("/message").or(text("/error/data/message")).or(text("/error/name")))
        }
        _ => Vec::new(),
    }
}

fn words(text: Option<&str>) -> Vec<String> {
    text.into_iter().map(plain).collect()
}

fn called(name: &str, input: Option<&Value>) -> Vec<String> {
    let input = input.map(|input| input.as_str().map_or_else(|| input.to_string(), str::to_owned));
    let input = first_line(&input.unwrap_or_default(), SUMMARY);
    vec![format!("→ {} {input}", style(plain(name)).cyan())]
}

fn answered(failed: bool, output: Option<&str>) -> Vec<String> {
    let mark = if failed { style("✘").red() } else { style("←").dim() };
    vec![format!("{mark} {}", first_line(output.unwrap_or_default(), SUMMARY))]
}

fn failed(message: Option<&str>) -> Vec<String> {
    message.into_iter().map(|message| style(plain(message)).yellow().to_string()).collect()
}

fn ended(how: &str) -> Vec<String> {
    vec![style(format!("agent ended: {}", plain(how))).bold().to_string()]
}

#[cfg(test)]
mod tests {
    use super::said;

    fn read(sample: &str) -> Vec<String> {
        sample.lines().flat_map(|line| said(&serde_json::from_str(line).unwrap())).collect()
    }

    #[test]
    fn the_samples_are_readable() {
        assert_eq!(
            read(include_str!("../../tests/data/codex/success.jsonl")),
            [
                "Let me look at the files first.",
                "→ command bash -lc ls",
                "← README.md",
                "Reconnecting... 1/5 (stream disconnected before completion)",
                "→ file_change [{\"kind\":\"add\",\"path\":\"notes.txt\"}]",
                "ANSWER",
                "agent ended: success",
            ]
        );
        assert_eq!(
            read(include_str!("../../tests/data/gemini/success.jsonl")),
            [
                "Let me look at",
                " the files first.",
                "→ run_shell_command {\"command\":\"ls\"}",
                "← README.md",
                "Loop detected, stopping execution",
                "ANSWER",
                "agent ended: success",
            ]
        );
        assert_eq!(
            read(include_str!("../../tests/data/opencode/success.jsonl")),
            [
                "Let me look at the files first.",
                "→ bash {\"command\":\"ls\"}",
                "← README.md",
                "ANSWER",
            ]
        );
    }
}
