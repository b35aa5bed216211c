//! As whom an agent works: what one role leaves in its home must not steer another.

use super::Task;

/// The part an agent has in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Changes the code, and says what it changed.
    Author,
    /// Plans what the author does.
    Planner,
    /// Judges what the author did.
    Reviewer,
}

impl Role {
    /// As whom an agent does a task. Words for the delivery are the author's.
    pub const fn of(task: Task) -> Self {
        match task {
            Task::Plan => Self::Planner,
            Task::Review | Task::Verdict => Self::Reviewer,
            Task::Change | Task::FollowUp | Task::Fix | Task::CommitMessage | Task::PullRequest => {
                Self::Author
            }
        }
    }

    /// What its folders have in their names; nothing in those of the author.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Author => "",
            Self::Planner => "-planner",
            Self::Reviewer => "-reviewer",
        }
    }

    /// Whether it changes the code; the others only look at it.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Author)
    }
}
