//! The common form of an agent's lines, and what the errors of model providers are about.

use serde_json::{Value, json};

/// A text of the agent.
pub fn said(text: &str) -> Value {
    json!({ "type": "assistant", "message": { "content": [{ "type": "text", "text": text }] } })
}

/// A tool that begins.
pub fn tool_begins(id: &str, name: &str, input: &Value) -> Value {
    let call = json!({ "type": "tool_use", "id": id, "name": name, "input": input });
    json!({ "type": "assistant", "message": { "content": [call] } })
}

/// A tool that has ended.
pub fn tool_ended(id: &str, failed: bool, output: &str) -> Value {
    let result = json!({ "type": "tool_result", "tool_use_id": id, "is_error": failed,
        "content": output });
    json!({ "type": "user", "message": { "content": [result] } })
}

/// A call of the provider that failed and is perhaps made again.
pub fn retry(message: &str) -> Value {
    let (name, status) = error_in(message);
    json!({ "type": "system", "subtype": "api_retry", "error": name, "error_status": status })
}

/// Tokens, as the common form counts them: those read from the provider's cache are no input.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tokens {
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_creation: u64,
}

impl Tokens {
    pub fn value(self) -> Value {
        json!({ "input_tokens": self.input, "output_tokens": self.output,
            "cache_read_input_tokens": self.cache_read,
            "cache_creation_input_tokens": self.cache_creation })
    }

    pub fn add(&mut self, more: Self) {
        self.input = self.input.saturating_add(more.input);
        self.output = self.output.saturating_add(more.output);
        self.cache_read = self.cache_read.saturating_add(more.cache_read);
        self.cache_creation = self.cache_creation.saturating_add(more.cache_creation);
    }
}

/// The end of a run.
#[derive(Debug, Clone, Default)]
pub struct Ending<'a> {
    /// The answer.
    pub answer: &'a str,
    /// What was consumed.
    pub tokens: Tokens,
    /// US dollars, where the CLI tells them.
    pub cost: Option<f64>,
    /// Calls of the model.
    pub turns: u64,
    /// Why the model stopped, in the words of the common form; empty when it was done.
    pub stop_reason: &'a str,
}

impl Ending<'_> {
    /// It ended well.
    pub fn well(&self) -> Value {
        let stop_reason = if self.stop_reason.is_empty() { "end_turn" } else { self.stop_reason };
        let mut line = self.line(false, self.answer);
        line["stop_reason"] = stop_reason.into();
        line
    }

    /// It ended with an error of the provider. The line before says which.
    pub fn with_error(&self, message: &str) -> [Value; 2] {
        let (name, status) = error_in(message);
        let mut line = self.line(true, message);
        line["api_error_status"] = status.into();
        let mut told = said(message);
        told["error"] = name.into();
        told["error_status"] = status.into();
        told["api_error_status"] = status.into();
        [told, line]
    }

    /// It used all its turns.
    pub fn out_of_turns(&self, message: &str) -> Value {
        let mut line = self.line(true, message);
        line["subtype"] = "error_max_turns".into();
        line
    }

    fn line(&self, is_error: bool, text: &str) -> Value {
        let mut line = json!({ "type": "result", "subtype": "success", "is_error": is_error,
            "result": text, "num_turns": self.turns, "usage": self.tokens.value() });
        if let Some(cost) = self.cost {
            line["total_cost_usd"] = cost.into();
        }
        line
    }
}

/// Words in lower case, and the name of the kind of error they stand for; the first match decides.
const WORDS: &[(&str, &str)] = &[
    ("insufficient_quota", "billing_error"),
    ("credit balance", "billing_error"),
    ("payment required", "billing_error"),
    ("usage limit", "rate_limit"),
    ("rate limit", "rate_limit"),
    ("rate_limit", "rate_limit"),
    ("too many requests", "rate_limit"),
    ("resource_exhausted", "rate_limit"),
    ("quota", "rate_limit"),
    ("providerautherror", "authentication_failed"),
    ("api key", "authentication_failed"),
    ("api_key", "authentication_failed"),
    ("unauthorized", "authentication_failed"),
    ("unauthenticated", "authentication_failed"),
    ("authentication", "authentication_failed"),
    ("permission_denied", "authentication_failed"),
    ("not logged in", "authentication_failed"),
    ("model_not_found", "model_not_found"),
    ("model not found", "model_not_found"),
    ("providermodelnotfounderror", "model_not_found"),
    ("output length", "max_output_tokens"),
    ("overloaded", "overloaded"),
    ("at capacity", "overloaded"),
    ("high demand", "overloaded"),
    ("service unavailable", "server_error"),
    ("internal server error", "server_error"),
    ("stream disconnected", "server_error"),
    ("error sending request", "server_error"),
    ("connection", "server_error"),
    ("econnre", "server_error"),
    ("enotfound", "server_error"),
    ("etimedout", "server_error"),
    ("fetch failed", "server_error"),
    ("socket", "server_error"),
];

/// What an error of a provider is about, in the names of the common form, and its HTTP status.
pub fn error_in(message: &str) -> (&'static str, Option<u16>) {
    let lower = message.to_lowercase();
    let status = status_in(&lower);
    let by_words = WORDS.iter().find(|(words, _)| lower.contains(words)).map(|(_, name)| *name);
    let by_status = match status {
        Some(401 | 403) => Some("authentication_failed"),
        Some(402) => Some("billing_error"),
        Some(429) => Some("rate_limit"),
        Some(529) => Some("overloaded"),
        Some(408 | 500..=599) => Some("server_error"),
        _ => None,
    };
    (
        by_status.filter(|_| status != Some(429)).or(by_words).or(by_status).unwrap_or("unknown"),
        status,
    )
}

/// The HTTP status in a message: `status 401`, `status: 429`, `"code": 503`, `http 500`, `[429 …`.
fn status_in(lower: &str) -> Option<u16> {
    ["status", "code", "http", "["].iter().find_map(|word| {
        lower.match_indices(word).find_map(|(at, _)| {
            let rest = &lower[at + word.len()..];
            let rest = rest.trim_start_matches(|c: char| " :=\"'\\".contains(c));
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let status = (digits == 3).then(|| rest[..3].parse().ok())??;
            (400..600).contains(&status).then_some(status)
        })
    })
}

/// A member that is text, or nothing.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A member that counts, or 0.
pub fn count(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::error_in;

    #[test]
    fn errors_of_providers_have_a_name_and_a_status() {
        for (message, name, status) in [
            (
                "unexpected status 401 Unauthorized: Missing bearer",
                "authentication_failed",
                Some(401),
            ),
            ("exceeded retry limit, last status: 429 Too Many Requests", "rate_limit", Some(429)),
            (
                "Quota exceeded. Check your plan (insufficient_quota), status 429",
                "billing_error",
                Some(429),
            ),
            ("You've hit your usage limit. Try again at 1:23 PM.", "rate_limit", None),
            (
                r#"{"error":{"code": 503,"message":"The model is overloaded"}}"#,
                "server_error",
                Some(503),
            ),
            ("stream disconnected before completion: error sending request", "server_error", None),
            ("[API Error: You exceeded your current quota]", "rate_limit", None),
            ("the tests fail", "unknown", None),
            ("exit code 127", "unknown", None),
        ] {
            assert_eq!(error_in(message), (name, status), "{message}");
        }
    }
}
