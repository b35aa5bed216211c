//! Why a run failed, as one word an operator can filter by, and whether trying again may help.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The class of a failure. Stored as text in every `error_class` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The model provider asked us to slow down (HTTP 429).
    RateLimited,
    /// The model provider is overloaded or failing (HTTP 5xx, 529).
    Overloaded,
    /// A credential was refused: model provider, git remote or forge.
    Auth,
    /// The cost limit of the run was reached.
    Budget,
    /// The turn limit of the run was reached.
    MaxTurns,
    /// The agent was silent for longer than the idle timeout.
    Stalled,
    /// The step took longer than its hard timeout.
    Timeout,
    /// Somebody asked for the order to be cancelled.
    Cancelled,
    /// The replica that ran the order died.
    LostWorker,
    /// The kernel killed the agent for its memory use.
    Oom,
    /// A volume is full.
    Disk,
    /// The agent ended in a way that is its own fault.
    ToolError,
    /// A git command failed.
    Git,
    /// The forge (GitHub) refused or failed.
    Forge,
    /// Nothing was changed, so there is nothing to deliver.
    NoChanges,
    /// The order or the agent's answer does not have the required form.
    Invalid,
}

/// A word that is not an error class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown error class {0:?}")]
pub struct UnknownErrorClass(String);

impl ErrorClass {
    /// Every class, in the order of the documentation.
    pub const ALL: [Self; 16] = [
        Self::RateLimited,
        Self::Overloaded,
        Self::Auth,
        Self::Budget,
        Self::MaxTurns,
        Self::Stalled,
        Self::Timeout,
        Self::Cancelled,
        Self::LostWorker,
        Self::Oom,
        Self::Disk,
        Self::ToolError,
        Self::Git,
        Self::Forge,
        Self::NoChanges,
        Self::Invalid,
    ];

    /// The word stored in the database and shown to people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Auth => "auth",
            Self::Budget => "budget",
            Self::MaxTurns => "max_turns",
            Self::Stalled => "stalled",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::LostWorker => "lost_worker",
            Self::Oom => "oom",
            Self::Disk => "disk",
            Self::ToolError => "tool_error",
            Self::Git => "git",
            Self::Forge => "forge",
            Self::NoChanges => "no_changes",
            Self::Invalid => "invalid",
        }
    }

    /// Whether the cause may pass by itself, so that a retry is worth its cost.
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::Overloaded
                | Self::Stalled
                | Self::LostWorker
                | Self::Oom
                | Self::Disk
                | Self::Git
                | Self::Forge
        )
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ErrorClass {
    type Err = UnknownErrorClass;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|class| class.as_str() == text)
            .ok_or_else(|| UnknownErrorClass(text.to_owned()))
    }
}
