//! The failure behind a refused call of the model provider: its class, its sentence, and when it may pass.

use std::time::Duration;

use chrono::{DateTime, Local, Utc};
use serde_json::Value;

use super::{Evidence, exit};
use crate::{
    agent::{
        conversation::ProviderError,
        refusal::{Facts, Refusal, classify},
        report::Failure,
        reset_time::until_reset,
    },
    domain::ErrorClass,
};

/// Longest part of the provider's words in a sentence, in characters.
const LONGEST: usize = 400;

/// What an error that the agent reported is known by.
pub(super) fn facts<'a>(error: &'a ProviderError, evidence: &Evidence<'_>) -> Facts<'a> {
    Facts {
        status: error.status,
        name: &error.name,
        error_type: &error.error_type,
        said: &error.said,
        proxy_only: evidence.proxy_only(),
    }
}

/// The failure; one that tells nothing of the provider may be this machine's.
pub(super) fn failure(facts: &Facts<'_>, evidence: &Evidence<'_>) -> Failure {
    let (refusal, status) = classify(facts);
    let untold = matches!(refusal, Refusal::Request | Refusal::Unknown);
    if untold && let Some(failure) = exit::on_this_machine(evidence, facts.said) {
        return failure;
    }
    // The words of a new version may be unknown; what it reported before them is not.
    let refusal =
        if untold && evidence.usage_limit.is_some() { Refusal::UsageLimit } else { refusal };
    refused(refusal, status, facts.said, evidence)
}

/// The failure of a known kind.
pub(super) fn refused(
    refusal: Refusal,
    status: Option<u16>,
    said: &str,
    evidence: &Evidence<'_>,
) -> Failure {
    let (class, advice) = (refusal.class(), refusal.advice(&evidence.names));
    let status = status.map(|status| format!("HTTP {status}"));
    let details: Vec<String> = status.into_iter().chain(reason(said)).collect();
    let message = if details.is_empty() {
        advice.into_owned()
    } else {
        format!("{advice} ({})", details.join(", "))
    };
    let retry_after =
        if class == ErrorClass::RateLimited { limit_resets_in(said, evidence) } else { None };
    Failure { retry_after, ..Failure::new(class, message) }
}

/// Until the provider's limit ends: by its own event, else by the words.
fn limit_resets_in(said: &str, evidence: &Evidence<'_>) -> Option<Duration> {
    let event = evidence.usage_limit.and_then(|limit| limit.resets_at);
    event.map(|at| Duration::from_secs(at.saturating_sub(evidence.now))).or_else(|| {
        let now: DateTime<Utc> = DateTime::from_timestamp(evidence.now.try_into().ok()?, 0)?;
        // The CLI runs on this machine, in its zone.
        until_reset(said, now, &Local)
    })
}

/// The provider's own reason, short enough for a sentence: its beginning, and of an answer in JSON the
/// message alone.
pub(super) fn reason(said: &str) -> Option<String> {
    let said = plain(said);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = lines.join(" | ");
    if said.chars().count() <= LONGEST {
        return (!said.is_empty()).then_some(said);
    }
    let cut: String = said.chars().take(LONGEST - 1).collect();
    Some(format!("{}…", cut.trim_end()))
}

/// The text with the provider's JSON replaced by the message in it.
fn plain(said: &str) -> String {
    let whole = || said.to_owned();
    let Some((before, _)) = said.split_once('{') else { return whole() };
    let mut values = serde_json::Deserializer::from_str(&said[before.len()..]).into_iter();
    let Some(Ok(value)) = values.next() else { return whole() };
    let value: Value = value;
    let found = ["/error/message", "/message", "/error"];
    let message = found.iter().find_map(|path| value.pointer(path)?.as_str());
    let Some(message) = message.filter(|message| !message.trim().is_empty()) else {
        return whole();
    };
    let after = &said[before.len() + values.byte_offset()..];
    format!("{before}{message}{after}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{LONGEST, reason};

    #[test]
    fn the_reason_is_the_message_of_an_answer_in_json() {
        for (said, expected) in [
            ("", None),
            (" \n", None),
            (
                r#"API Error: 403 {"type":"error","error":{"type":"permission_error","message":"no Opus"}} · Ask"#,
                Some("API Error: 403 no Opus · Ask"),
            ),
            (r#"{"message":"no"}"#, Some("no")),
            (r#"{"error":"no"}"#, Some("no")),
            (r#"400 {"error":{}}"#, Some(r#"400 {"error":{}}"#)),
            ("of {braces", Some("of {braces")),
            ("one\n\n two\n", Some("one | two")),
        ] {
            assert_eq!(reason(said).as_deref(), expected, "{said}");
        }
        assert!(reason(&"word ".repeat(500)).is_some_and(|text| text.ends_with("word…")));
    }

    proptest! {
        #[test]
        fn a_reason_is_short_whatever_was_said(said in ".*", json in r#"[{}":,a-z \n]{0,80}"#) {
            for said in [&said, &json, &format!("{said}{json}").repeat(30)] {
                let reason = reason(said);
                prop_assert!(reason.is_none_or(|text| text.chars().count() <= LONGEST));
            }
        }
    }
}
