//! How the sandbox of an order is to be made.

use crate::domain::{BranchName, SandboxType};

/// What is known of a sandbox before it is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The branch to start from; the repository's default branch when `None`.
    pub base: Option<BranchName>,
    /// Whose objects it reads.
    pub sandbox_type: SandboxType,
}

impl From<Option<&BranchName>> for Plan {
    fn from(base: Option<&BranchName>) -> Self {
        Self { base: base.cloned(), ..Self::default() }
    }
}

impl From<&Self> for Plan {
    fn from(plan: &Self) -> Self {
        plan.clone()
    }
}
