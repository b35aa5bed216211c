//! The id of a work order, safe as a folder name and inside a branch name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest id that is accepted, in bytes: it is a folder name and the tail of a branch name.
const MAX_LENGTH: usize = 64;

/// Names one work order. The database holds the same rule in the check `agent_work_order_id_safe`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkOrderId(String);

/// An id that cannot be a folder name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "agent_work_order_id {0:?} cannot be used as a folder name: expected 1 to 64 letters, digits, \
     '-', '_' or single '.', starting with a letter or digit and not ending in '.' or '.lock'"
)]
pub struct InvalidOrderId(String);

impl WorkOrderId {
    /// The id as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WorkOrderId {
    type Err = InvalidOrderId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let safe = (1..=MAX_LENGTH).contains(&text.len())
            && text.chars().all(allowed)
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && !text.contains("..")
            && !text.ends_with('.')
            && !text.to_ascii_lowercase().ends_with(".lock");
        if safe { Ok(Self(text.to_owned())) } else { Err(InvalidOrderId(text.to_owned())) }
    }
}

impl TryFrom<String> for WorkOrderId {
    type Error = InvalidOrderId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<WorkOrderId> for String {
    fn from(id: WorkOrderId) -> Self {
        id.0
    }
}

impl fmt::Display for WorkOrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::WorkOrderId;

    #[test]
    fn ids_that_leave_their_folder_are_refused() {
        for bad in
            ["", ".", "..", "../x", "a/b", ".cache", "-x", "a..b", "a.lock", "a.", "a b", "é"]
        {
            assert!(bad.parse::<WorkOrderId>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn plain_ids_are_accepted() {
        for good in ["wo-1f2e", "42", "Team_a.7", "8b0cdb7e-9d8c-4c0c-b1f3-3f6ef1a1a111"] {
            assert!(good.parse::<WorkOrderId>().is_ok(), "{good:?} was refused");
        }
    }
}
