//! The state machines of jobs and work orders: the only place in Rust where transitions are written.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a job is in its life; the Postgres enum `awo.job_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[sqlx(type_name = "awo.job_state", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for a free slot, or for `run_at`.
    Queued,
    /// A replica holds its lease.
    Running,
    /// Waits for something outside.
    Waiting,
    /// Ended well.
    Succeeded,
    /// Ended with an error class.
    Failed,
    /// Ended by request.
    Cancelled,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Running,
        Self::Waiting,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The states from which this one may be entered. `awo.guard_job_state` enforces the same
    /// table in the database; a test compares the two. A succeeded job is queued again only while a
    /// follow-up prompt waits (`awo_prompt`).
    pub const fn predecessors(self) -> &'static [Self] {
        match self {
            Self::Queued => &[Self::Running, Self::Waiting, Self::Failed, Self::Cancelled],
            Self::Running => &[Self::Queued],
            Self::Waiting | Self::Succeeded => &[Self::Running],
            Self::Failed | Self::Cancelled => &[Self::Queued, Self::Running, Self::Waiting],
        }
    }

    /// Whether the job has ended.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// What the owner of the work order sees while its job is in this state.
    pub const fn order_status(self) -> OrderStatus {
        match self {
            Self::Queued | Self::Waiting => OrderStatus::Pending,
            Self::Running => OrderStatus::Running,
            Self::Succeeded => OrderStatus::Completed,
            Self::Failed => OrderStatus::Failed,
            Self::Cancelled => OrderStatus::Cancelled,
        }
    }
}

/// Where a work order is in its life, as Archon shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// Accepted, not running.
    Pending,
    /// A replica works on it.
    Running,
    /// Ended well.
    Completed,
    /// Ended with an error class.
    Failed,
    /// Ended by request.
    Cancelled,
}

impl OrderStatus {
    /// The word stored in `agent_work_orders.status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::JobState;

    #[test]
    fn only_a_claim_enters_running_and_only_running_succeeds() {
        assert_eq!(JobState::Running.predecessors(), [JobState::Queued]);
        assert_eq!(JobState::Succeeded.predecessors(), [JobState::Running]);
    }

    #[test]
    fn every_state_but_running_can_be_left_or_is_final() {
        for state in JobState::ALL {
            let left = JobState::ALL.iter().any(|next| next.predecessors().contains(&state));
            assert!(left || state == JobState::Succeeded, "{state:?} is a dead end");
        }
    }
}
