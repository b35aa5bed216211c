//! What the result line says against a run: its subtype, and why model and agent stopped.

use super::{Evidence, exit, provider, session_is_unknown};
use crate::{
    agent::{
        conversation::ResultLine,
        refusal::{Facts, Refusal, classify},
        report::Failure,
    },
    domain::ErrorClass,
};

/// The failure that a result line tells of; nothing when it tells of success.
pub(super) fn failure(result: &ResultLine, evidence: &Evidence<'_>) -> Option<Failure> {
    let said = said(result);
    if let Some(refusal) = stopped(result) {
        return Some(provider::refused(refusal, result.status, &said, evidence));
    }
    let failure = match (result.subtype.as_str(), result.terminal_reason.as_str()) {
        ("error_max_turns", _) | (_, "max_turns") => max_turns(&said, evidence),
        ("error_max_budget_usd", _) | (_, "budget_exhausted") => max_budget(&said, evidence),
        _ if session_is_unknown(Some(result)) => Failure::new(
            ErrorClass::ToolError,
            format!("the agent could not continue its conversation ({said}): run the step afresh"),
        ),
        ("success", "") if result.unasked && !result.is_error => held_back(&said),
        ("success", reason) => {
            let refused = || {
                let is_error = result.is_error
                    || matches!(reason, "api_error" | "model_error" | "image_error");
                is_error.then(|| refused_call(result, &said, evidence))
            };
            return cut_short(reason, &said, evidence).or_else(refused);
        }
        (_, "aborted_tools" | "aborted_streaming") => interrupted(),
        (subtype, _) => other(subtype, &said, evidence),
    };
    Some(failure)
}

/// The words of a result: its answer, or its errors without what is meant for the CLI's own authors.
fn said(result: &ResultLine) -> String {
    let errors = result.errors.iter().filter(|error| !error.starts_with("[ede_diagnostic]"));
    let errors = errors.map(String::as_str).collect::<Vec<_>>().join("; ");
    result.text.clone().filter(|text| !text.trim().is_empty()).unwrap_or(errors)
}

/// The kind of an end that the model itself, or what it can take, has caused.
fn stopped(result: &ResultLine) -> Option<Refusal> {
    Some(match (result.stop_reason.as_str(), result.terminal_reason.as_str()) {
        ("refusal", _) => Refusal::UsagePolicy,
        ("max_tokens", _) => Refusal::OutputTooLong,
        ("model_context_window_exceeded", _)
        | (_, "prompt_too_long" | "blocking_limit" | "rapid_refill_breaker") => {
            Refusal::InputTooLong
        }
        _ => return None,
    })
}

/// A call of the provider that was refused, which ends with subtype `success` too.
fn refused_call(result: &ResultLine, said: &str, evidence: &Evidence<'_>) -> Failure {
    let error = evidence.provider_error;
    let told = error.map(|error| error.said.as_str()).filter(|_| said.is_empty());
    let own = Some(result.error_type.as_str()).filter(|own| !own.is_empty());
    let facts = Facts {
        status: result.status.or_else(|| error.and_then(|error| error.status)),
        name: error.map_or("", |error| &error.name),
        error_type: own.or_else(|| error.map(|error| error.error_type.as_str())).unwrap_or(""),
        said: told.unwrap_or(said),
        proxy_only: evidence.proxy_only(),
    };
    provider::failure(&facts, evidence)
}

/// The failure of a run that something ended before it was done, for a reason that is not the provider's.
fn cut_short(reason: &str, said: &str, evidence: &Evidence<'_>) -> Option<Failure> {
    let failure = |class, message: &str| Some(Failure::new(class, with_reason(message, said)));
    match reason {
        "aborted_tools" | "aborted_streaming" => Some(interrupted()),
        "hook_stopped" => failure(
            ErrorClass::ToolError,
            "a hook ended the run of the agent: correct the hooks of the repository or of the agent's \
             settings",
        ),
        "turn_setup_failed" => failure(
            ErrorClass::Invalid,
            "the agent did not begin: correct its settings, or the policy of the organization behind its \
             credential",
        ),
        "malformed_tool_use_exhausted" => failure(
            ErrorClass::ToolError,
            &format!(
                "the model called its tools again and again in a form that the agent cannot read: set \
                 another {}",
                evidence.names.model
            ),
        ),
        _ => None,
    }
}

fn max_turns(said: &str, evidence: &Evidence<'_>) -> Failure {
    let message = format!(
        "the agent used all its turns before it was done ({said}): raise {} or split the request",
        evidence.names.max_turns
    );
    Failure::new(ErrorClass::MaxTurns, message)
}

fn max_budget(said: &str, evidence: &Evidence<'_>) -> Failure {
    let message = format!(
        "the agent reached its cost limit before it was done ({said}): raise {} or split the request",
        evidence.names.max_budget
    );
    Failure::new(ErrorClass::Budget, message)
}

/// A run that ended well and did nothing: its words, if any, are no answer.
fn held_back(said: &str) -> Failure {
    let message = "the request did not reach the model: correct the hook of the repository, or of the agent's \
                   settings, that held it back";
    Failure::new(ErrorClass::ToolError, with_reason(message, said))
}

fn interrupted() -> Failure {
    let message =
        "the agent was interrupted in the middle of its work by somebody other than archon-awo";
    Failure::new(ErrorClass::ToolError, message)
}

/// A subtype without a sentence of its own: what it was about may stand in its words.
fn other(subtype: &str, said: &str, evidence: &Evidence<'_>) -> Failure {
    let facts = Facts { said, proxy_only: evidence.proxy_only(), ..Facts::default() };
    if classify(&facts).0 != Refusal::Unknown {
        return provider::failure(&facts, evidence);
    }
    exit::on_this_machine(evidence, said).unwrap_or_else(|| {
        let message = with_reason(&format!("the agent ended with {subtype}"), said);
        Failure::new(ErrorClass::ToolError, message)
    })
}

fn with_reason(message: &str, said: &str) -> String {
    provider::reason(said).map_or_else(|| message.to_owned(), |said| format!("{message} ({said})"))
}
