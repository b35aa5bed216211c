//! What the end of the agent's process says against a run, with the words it left behind.

use super::{Evidence, full_disk};
use crate::{
    agent::report::{Exit, Failure},
    disk,
    domain::ErrorClass,
};

/// Longest part of the agent's words in a sentence, in characters.
const LONGEST: usize = 400;
/// How runtimes tell that they got no memory, before they end themselves by a signal or a code of their own.
const NO_MEMORY: [&str; 4] =
    ["javascript heap out of memory", "out of memory", "cannot allocate memory", "memoryerror"];

/// The failure of a run whose process did not end with exit code 0.
pub(super) fn failure(evidence: &Evidence<'_>) -> Failure {
    if let Some(failure) = on_this_machine(evidence, "") {
        return failure;
    }
    let invalid = |message: &str| Failure::new(ErrorClass::Invalid, with_words(message, evidence));
    let stderr = evidence.stderr;
    if stderr.contains("cannot be used with root") {
        return invalid("the agent refuses to run as root: run archon-awo as an ordinary user");
    }
    if stderr.contains("' not found (required by") || stderr.contains("error while loading shared")
    {
        return invalid(
            "the agent's program does not fit this system: install the libraries it was built for, or \
             another version of it",
        );
    }
    let message = match evidence.exit {
        Some(Exit { signal: Some(9), .. } | Exit { code: Some(137), .. }) => {
            "the agent was killed (signal 9) by somebody other than archon-awo".to_owned()
        }
        Some(Exit { signal: Some(signal), .. }) => {
            format!("the agent was ended by signal {signal}")
        }
        Some(Exit { code: Some(code), .. }) => format!("the agent ended with exit code {code}"),
        _ => "the end of the agent was not seen".to_owned(),
    };
    Failure::new(ErrorClass::ToolError, with_words(&message, evidence))
}

/// Memory and disk: causes that lie in this machine and not in the agent.
pub(super) fn on_this_machine(evidence: &Evidence<'_>, said: &str) -> Option<Failure> {
    if evidence.disk_full || disk::says_full(evidence.stderr) || disk::says_full(said) {
        return Some(full_disk());
    }
    let ended_by = |signals: &[i32]| {
        evidence.exit.is_some_and(|Exit { code, signal }| {
            signals.iter().any(|one| signal == Some(*one) || code == Some(128 + one))
        })
    };
    // The kernel kills by signal 9; a runtime that got no memory aborts, traps or says so.
    let killed = ended_by(&[9]) && evidence.out_of_memory;
    let stderr = evidence.stderr.to_lowercase();
    let gave_up = ended_by(&[4, 5, 6, 11]) && NO_MEMORY.iter().any(|words| stderr.contains(words));
    if killed {
        let message = "the kernel killed the agent because memory ran out: give the container more memory, \
                       raise AWO_AGENT_MEMORY where it is set, or lower AWO_MAX_CONCURRENT";
        return Some(Failure::new(ErrorClass::Oom, message));
    }
    gave_up.then(|| {
        let message = "the agent ended because it got no more memory: give the container more memory, raise \
                       AWO_AGENT_MEMORY where it is set, or lower AWO_MAX_CONCURRENT";
        Failure::new(ErrorClass::Oom, with_words(message, evidence))
    })
}

/// The message, with the agent's last words about it.
pub(super) fn with_words(message: &str, evidence: &Evidence<'_>) -> String {
    let said = last_words(evidence.stderr).or_else(|| last_words(evidence.stdout));
    said.map_or_else(|| message.to_owned(), |said| format!("{message} ({said})"))
}

/// The last lines of a text, short enough for a sentence. Of a stack trace the error it belongs to, and
/// not the places that it passed.
fn last_words(text: &str) -> Option<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let (places, words): (Vec<&str>, Vec<&str>) = lines.partition(|line| is_place(line));
    let lines = if words.is_empty() { places } else { words };
    let said = lines[lines.len().saturating_sub(3)..].join(" | ");
    let cut = said.chars().count().saturating_sub(LONGEST);
    let said: String = said.chars().skip(cut).collect();
    (!said.is_empty()).then_some(said)
}

/// A line of a stack trace that names a place in a program, or the runtime at its end.
fn is_place(line: &str) -> bool {
    let runtime = |name: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('v'));
    let named = line.strip_prefix("at ").is_some_and(|rest| {
        rest.ends_with(')') || rest.contains(':') || rest.starts_with("async ")
    });
    named || runtime("Node.js ") || runtime("Bun ") || line.chars().all(|c| matches!(c, '^' | '~'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{LONGEST, last_words};

    #[test]
    fn a_stack_trace_is_told_by_its_error() {
        let node = "node:internal/process:394\n      throw err;\n      ^\n\nTypeError: x is not a function\n\
                    \x20   at Object.<anonymous> (/opt/cli.js:1:7)\n    at async main (/opt/cli.js:9:3)\n\n\
                    Node.js v20.11.0\n";
        let said = last_words(node).unwrap();
        assert!(said.ends_with("| TypeError: x is not a function"), "{said}");
        assert_eq!(last_words("    at f (a.js:1)\n").as_deref(), Some("at f (a.js:1)"));
        assert_eq!(
            last_words("looked at it\nat last\n").as_deref(),
            Some("looked at it | at last")
        );
        assert_eq!(last_words(" \n"), None);
    }

    proptest! {
        #[test]
        fn last_words_are_short(text in ".*", lines in "[a-z :()\n]{0,200}") {
            for text in [&text, &lines, &lines.repeat(20)] {
                prop_assert!(last_words(text).is_none_or(|said| said.chars().count() <= LONGEST));
            }
        }
    }
}
