//! The words by which refusals are told apart where no field tells them. In lower case, with straight
//! apostrophes; the first match of a table decides.

use super::Refusal;

/// Sentences of the CLI and of the provider, which stand before status and name: several kinds are
/// reported under one of those.
const SENTENCES: &[(&str, Refusal)] = &[
    ("credit balance is too low", Refusal::Credit),
    ("credit balance too low", Refusal::Credit),
    ("out of usage credits", Refusal::Credit),
    ("requires usage credits", Refusal::Credit),
    ("usage credits required", Refusal::Credit),
    ("usage credits are required", Refusal::Credit),
    ("usage credits ran out", Refusal::Credit),
    ("extra usage is required", Refusal::Credit),
    ("spend limit", Refusal::Credit),
    ("spending cap", Refusal::Credit),
    ("usage limit is set to $0", Refusal::Credit),
    ("output token maximum", Refusal::OutputTooLong),
    ("context window limit", Refusal::InputTooLong),
    ("context limit reached", Refusal::InputTooLong),
    ("prompt is too long", Refusal::InputTooLong),
    ("request too large", Refusal::InputTooLong),
    ("request_too_large", Refusal::InputTooLong),
    ("exceed context limit", Refusal::InputTooLong),
    ("rate limit reached", Refusal::RateLimit),
    ("not your usage limit", Refusal::RateLimit),
    ("usage limit reached", Refusal::UsageLimit),
    ("hour limit reached", Refusal::UsageLimit),
    ("weekly limit reached", Refusal::UsageLimit),
    ("session limit reached", Refusal::UsageLimit),
    ("opus limit reached", Refusal::UsageLimit),
    ("sonnet limit reached", Refusal::UsageLimit),
    ("limit reached ∙ resets", Refusal::UsageLimit),
    ("limit reached · resets", Refusal::UsageLimit),
    ("you've hit your ", Refusal::UsageLimit),
    ("out of extra usage", Refusal::UsageLimit),
    ("is out of usage", Refusal::UsageLimit),
    ("usage is paused for your organization", Refusal::UsageLimit),
    ("reached your specified api usage limits", Refusal::UsageLimit),
    ("usage policy", Refusal::UsagePolicy),
    ("safeguards flagged", Refusal::UsagePolicy),
    ("can't help with this. start a new session", Refusal::UsagePolicy),
    ("content filtering policy", Refusal::UsagePolicy),
    ("disabled organization", Refusal::Forbidden),
    ("organization has been disabled", Refusal::Forbidden),
    ("organization has disabled", Refusal::Forbidden),
    ("disabled for your org", Refusal::Forbidden),
    ("disabled by your admin", Refusal::Forbidden),
    ("api key authentication is disabled", Refusal::Forbidden),
    ("seat type doesn't include", Refusal::Forbidden),
    ("selected model", Refusal::Model),
    ("is not available on your", Refusal::Model),
    ("is not available with the claude", Refusal::Model),
    ("high load", Refusal::Overloaded),
    ("repeated 529", Refusal::Overloaded),
    ("oauth token has expired", Refusal::ExpiredLogin),
    ("oauth token revoked", Refusal::ExpiredLogin),
    ("oauth session expired", Refusal::ExpiredLogin),
    ("login expired", Refusal::ExpiredLogin),
    ("login reached its time limit", Refusal::ExpiredLogin),
    ("not logged in", Refusal::NoCredential),
];

/// Words that count when neither status nor name told the kind.
const WORDS: &[(&str, Refusal)] = &[
    ("invalid api key", Refusal::Credential),
    ("invalid auth token", Refusal::Credential),
    ("failed to authenticate", Refusal::Credential),
    ("oauth token", Refusal::ExpiredLogin),
    ("has been disabled", Refusal::Forbidden),
    ("/login", Refusal::NoCredential),
    ("rate limit", Refusal::RateLimit),
    ("overloaded", Refusal::Overloaded),
    ("internal server error", Refusal::Overloaded),
    ("temporarily unavailable", Refusal::Overloaded),
    ("ssl certificate", Refusal::Certificate),
    ("self-signed certificate", Refusal::Certificate),
    ("ssl error", Refusal::Certificate),
    ("econnreset", Refusal::CutOff),
    ("epipe", Refusal::CutOff),
    ("connection dropped", Refusal::CutOff),
    ("connection lost", Refusal::CutOff),
    ("connection closed", Refusal::CutOff),
    ("connection to the api was lost", Refusal::CutOff),
    ("response could not be read", Refusal::CutOff),
    ("stream ended", Refusal::CutOff),
    ("request was aborted", Refusal::CutOff),
    ("socket hang up", Refusal::CutOff),
    ("unable to connect", Refusal::Unreachable),
    ("couldn't connect", Refusal::Unreachable),
    ("can't reach the api", Refusal::Unreachable),
    ("no internet route", Refusal::Unreachable),
    ("no response from api", Refusal::Unreachable),
    ("connection error", Refusal::Unreachable),
    ("connection refused", Refusal::Unreachable),
    ("connectionrefused", Refusal::Unreachable),
    ("failedtoopensocket", Refusal::Unreachable),
    ("timed out", Refusal::Unreachable),
    ("fetch failed", Refusal::Unreachable),
    ("econnrefused", Refusal::Unreachable),
    ("etimedout", Refusal::Unreachable),
    ("enotfound", Refusal::Unreachable),
    ("eai_again", Refusal::Unreachable),
    ("enetunreach", Refusal::Unreachable),
    ("ehostunreach", Refusal::Unreachable),
    ("eacces", Refusal::Unreachable),
];

/// By what an attempt to connect ends with where Landlock forbids it: the kernel's `EACCES`, or the name
/// that the CLI's runtime has for any socket it could not open.
const KEPT_OUT: &[&str] = &["eacces", "failedtoopensocket", "permission denied"];

/// The kind a whole sentence stands for.
pub(super) fn sentence(lower: &str) -> Option<Refusal> {
    find(SENTENCES, lower)
}

/// The kind a word stands for.
pub(super) fn word(lower: &str) -> Option<Refusal> {
    find(WORDS, lower)
}

/// Whether the system refused to open the connection.
pub(super) fn is_kept_out(lower: &str) -> bool {
    KEPT_OUT.iter().any(|words| lower.contains(words))
}

fn find(table: &[(&str, Refusal)], lower: &str) -> Option<Refusal> {
    table.iter().find(|(words, _)| lower.contains(words)).map(|(_, kind)| *kind)
}
