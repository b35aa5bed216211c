//! What the fake says when it is its turn.

use std::time::Duration;

use serde_json::{Value, json};

/// One turn of the fake.
#[derive(Debug, Clone)]
pub enum Turn {
    /// A final answer.
    Text(&'static str),
    /// Calls a tool of the CLI.
    Tool(&'static str, Value),
    /// Refuses with this status and error type.
    Refuse(u16, &'static str),
    /// Never answers.
    Hang,
    /// A message in all its parts.
    Reply(Reply),
    /// A refusal in all its parts.
    Refusal(Refusal),
}

/// A message of the model.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// What it consists of, in this order.
    pub blocks: Vec<Block>,
    /// `stop_reason`; `tool_use` or `end_turn` by the blocks when absent.
    pub stop: Option<String>,
    /// What it is said to have consumed.
    pub usage: Usage,
    /// How long the fake thinks before the first byte.
    pub delay: Duration,
    /// Time before each piece of the text; the text is one piece when absent.
    pub pace: Option<Duration>,
    /// The connection is cut after that many pieces.
    pub cut: Option<usize>,
    /// After the last piece comes an event with an error of this type.
    pub broken: Option<String>,
    /// After that many pieces nothing follows, and the connection stays open.
    pub stall: Option<usize>,
}

/// A part of a message.
#[derive(Debug, Clone)]
pub enum Block {
    /// Words.
    Text(String),
    /// Thoughts.
    Thinking(String),
    /// A call of a tool: its name and its input.
    Tool(String, Value),
}

/// What a message consumed, in tokens, as the API tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Input that no cache held.
    pub input: u64,
    /// Output.
    pub output: u64,
    /// Input read from the cache.
    pub cache_read: u64,
    /// Input written to the cache for five minutes.
    pub cache_write_5m: u64,
    /// Input written to the cache for an hour.
    pub cache_write_1h: u64,
}

/// An answer that is no message.
#[derive(Debug, Clone, Default)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// `error.type`.
    pub kind: String,
    /// `error.message`.
    pub message: String,
    /// The whole body instead, such as the page of a proxy.
    pub body: Option<String>,
    /// More headers, such as `retry-after`.
    pub headers: Vec<(String, String)>,
}

impl Reply {
    /// A final answer.
    pub fn text(text: impl Into<String>) -> Self {
        Self { blocks: vec![Block::Text(text.into())], ..Self::default() }
    }

    /// A call of a tool.
    pub fn tool(name: impl Into<String>, input: Value) -> Self {
        Self { blocks: vec![Block::Tool(name.into(), input)], ..Self::default() }
    }

    /// The same, consuming something else.
    #[must_use]
    pub fn spending(self, usage: Usage) -> Self {
        Self { usage, ..self }
    }

    /// Whether its text is sent word by word.
    pub(super) fn comes_in_pieces(&self) -> bool {
        self.pace.is_some() || self.cut.is_some() || self.stall.is_some()
    }

    /// `stop_reason`.
    pub(super) fn stop_reason(&self) -> &str {
        let calls = self.blocks.iter().any(|block| matches!(block, Block::Tool(..)));
        self.stop.as_deref().unwrap_or(if calls { "tool_use" } else { "end_turn" })
    }
}

impl Default for Usage {
    fn default() -> Self {
        Self { input: 100, output: 20, cache_read: 0, cache_write_5m: 0, cache_write_1h: 0 }
    }
}

impl Usage {
    /// Nothing.
    pub const ZERO: Self =
        Self { input: 0, output: 0, cache_read: 0, cache_write_5m: 0, cache_write_1h: 0 };

    /// Both kinds of writes to the cache.
    pub fn cache_writes(self) -> u64 {
        self.cache_write_5m + self.cache_write_1h
    }

    /// As the API writes it, with so many tokens of output.
    pub(super) fn told(self, output: u64) -> Value {
        json!({
            "input_tokens": self.input,
            "output_tokens": output,
            "cache_read_input_tokens": self.cache_read,
            "cache_creation_input_tokens": self.cache_writes(),
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.cache_write_5m,
                "ephemeral_1h_input_tokens": self.cache_write_1h,
            },
        })
    }
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            input: self.input + other.input,
            output: self.output + other.output,
            cache_read: self.cache_read + other.cache_read,
            cache_write_5m: self.cache_write_5m + other.cache_write_5m,
            cache_write_1h: self.cache_write_1h + other.cache_write_1h,
        }
    }
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, |sum, usage| sum + usage)
    }
}

impl Turn {
    /// The same in all its parts; nothing for one that never answers.
    pub(super) fn parts(self) -> Option<Result<Reply, Refusal>> {
        Some(match self {
            Self::Text(text) => Ok(Reply::text(text)),
            Self::Tool(name, input) => Ok(Reply::tool(name, input)),
            Self::Refuse(status, kind) => Err(Refusal {
                status,
                kind: kind.to_owned(),
                message: kind.to_owned(),
                ..Refusal::default()
            }),
            Self::Hang => return None,
            Self::Reply(reply) => Ok(reply),
            Self::Refusal(refusal) => Err(refusal),
        })
    }
}
