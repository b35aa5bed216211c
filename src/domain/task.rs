//! What an agent is asked for: a step may ask it more than one thing.

use std::fmt;

/// What one call of an agent is about. The page docs/agents.md says what each has to do and to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// `planning`: a plan.
    Plan,
    /// `execute`: the change.
    Change,
    /// `execute`: more about a change that was made, in words that came later.
    FollowUp,
    /// `prp-review`: a verdict about the change.
    Review,
    /// `prp-review`: the verdict alone, after an answer that held none.
    Verdict,
    /// `prp-review`: a change that takes the blockers of a verdict away.
    Fix,
    /// `commit`: the message of the commit.
    CommitMessage,
    /// `create-pr`: title and description of the pull request.
    PullRequest,
}

impl Task {
    /// The word that the agent finds in `AWO_TASK`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Change => "change",
            Self::FollowUp => "follow-up",
            Self::Review => "review",
            Self::Verdict => "verdict",
            Self::Fix => "fix",
            Self::CommitMessage => "commit-message",
            Self::PullRequest => "pull-request",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
