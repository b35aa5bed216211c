//! What is known about a run when it has ended.

use std::time::Duration;

use uuid::Uuid;

use super::{denied_calls::DeniedCall, isolation::Isolation};
use crate::domain::{ErrorClass, RunUsage};

/// A run that has ended, whichever way.
#[derive(Debug, Clone)]
pub struct AgentReport {
    /// Whether the run counts, and why not.
    pub verdict: Result<(), Failure>,
    /// The agent's final answer, redacted, at most [`super::MAX_ANSWER`] bytes; NUL replaced.
    pub text: String,
    /// Whether it ended well but for the result line that is missing: it may be asked once more.
    pub answer_is_lost: bool,
    /// Calls of tools that it was not allowed to make, redacted and shortened.
    pub denied: Vec<DeniedCall>,
    /// The conversation, with which a later run can resume.
    pub session: Option<Uuid>,
    /// Whether this run continued an earlier conversation.
    pub resumed: bool,
    /// What it consumed, as the agent itself counted.
    pub usage: RunUsage,
    /// How the agent's own process ended; `None` when that was not seen.
    pub exit: Option<Exit>,
    /// From the agent's end, or from when it was first told to end, until no process of its tree
    /// was left; `None` when that could not be shown.
    pub tree_empty_after: Option<Duration>,
    /// From the call to the end of the tree.
    pub duration: Duration,
    /// Whether a line or the spool was cut because of its size.
    pub truncated: bool,
    /// Bytes in the spool files that were not taken from the channel: `(stdout, stderr)` offsets
    /// from which somebody else may go on reading.
    pub delivered: Delivered,
    /// How far the agent was shut in; `None` when it was not started.
    pub isolation: Option<Isolation>,
}

/// How far the output got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Bytes of standard output in the spool.
    pub stdout_spooled: u64,
    /// ... of which this many were taken from the channel.
    pub stdout_sent: u64,
    /// Bytes of standard error in the spool.
    pub stderr_spooled: u64,
    /// ... of which this many were taken from the channel.
    pub stderr_sent: u64,
}

impl Delivered {
    /// Whether the spool holds more than was taken.
    pub fn is_behind(&self) -> bool {
        self.stdout_sent < self.stdout_spooled || self.stderr_sent < self.stderr_spooled
    }
}

/// Why a run does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The class, which decides about a retry.
    pub class: ErrorClass,
    /// A sentence a person can act on, redacted.
    pub message: String,
    /// The earliest time at which a retry makes sense, as far as the provider said so.
    pub retry_after: Option<Duration>,
    /// Whether the sandbox was free: otherwise nothing began, and nothing is to be blamed for it.
    pub sandbox_free: bool,
}

impl Failure {
    /// A failure without advice about when to retry.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), retry_after: None, sandbox_free: true }
    }
}

/// How a process ended: exactly one of the two is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}
