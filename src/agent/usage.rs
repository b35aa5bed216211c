//! What an agent says that its run consumed, collected from its messages.

use std::collections::BTreeMap;

use serde_json::Value;

/// Most messages without a result line whose tokens are remembered.
const MAX_MESSAGES: usize = 100_000;

/// What a run consumed. All zero when the agent does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Tokens read, without those from the cache.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Tokens read from the provider's cache.
    pub cache_read_tokens: u64,
    /// Tokens written to it.
    pub cache_creation_tokens: u64,
    /// The agent's own estimate in US dollars.
    pub cost_usd: Option<f64>,
    /// Turns of the conversation.
    pub num_turns: u64,
}

/// Counts along while a run's messages are heard.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    total: Option<Usage>,
    by_message: BTreeMap<String, Usage>,
}

impl Meter {
    /// Takes the next message, of the type `kind`.
    pub fn hear(&mut self, kind: &str, value: &Value) {
        match kind {
            "assistant" => self.hear_assistant(value),
            "result" => self.total = Some(parse_result(value)),
            _ => {}
        }
    }

    /// What was consumed: the totals of the result line, else the sum over the messages seen.
    pub fn usage(&self) -> Usage {
        if let Some(total) = self.total {
            return total;
        }
        let mut sum = Usage { num_turns: self.by_message.len() as u64, ..Usage::default() };
        for usage in self.by_message.values() {
            sum.input_tokens = sum.input_tokens.saturating_add(usage.input_tokens);
            sum.output_tokens = sum.output_tokens.saturating_add(usage.output_tokens);
            sum.cache_read_tokens = sum.cache_read_tokens.saturating_add(usage.cache_read_tokens);
            sum.cache_creation_tokens =
                sum.cache_creation_tokens.saturating_add(usage.cache_creation_tokens);
        }
        sum
    }

    fn hear_assistant(&mut self, value: &Value) {
        let Some(message) = value.get("message") else { return };
        let id = message.get("id").and_then(Value::as_str);
        if let (Some(id), Some(usage)) = (id, message.get("usage"))
            && self.by_message.len() < MAX_MESSAGES
        {
            self.by_message.insert(id.to_owned(), parse_usage(usage));
        }
    }
}

fn parse_result(value: &Value) -> Usage {
    let mut usage = value.get("usage").map(parse_usage).unwrap_or_default();
    usage.cost_usd = value.get("total_cost_usd").and_then(Value::as_f64);
    usage.num_turns = value.get("num_turns").and_then(Value::as_u64).unwrap_or_default();
    usage
}

fn parse_usage(value: &Value) -> Usage {
    let tokens = |key| value.get(key).and_then(Value::as_u64).unwrap_or_default();
    Usage {
        input_tokens: tokens("input_tokens"),
        output_tokens: tokens("output_tokens"),
        cache_read_tokens: tokens("cache_read_input_tokens"),
        cache_creation_tokens: tokens("cache_creation_input_tokens"),
        ..Usage::default()
    }
}
