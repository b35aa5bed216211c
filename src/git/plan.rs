//! How the sandbox of an order is to be made.

use serde::{Deserialize, Serialize};

use crate::domain::{BranchName, SandboxType, SparsePath};

/// What is known of a sandbox before it is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The branch to start from; the repository's default branch when `None`.
    pub base: Option<BranchName>,
    /// Whose objects it reads.
    pub sandbox_type: SandboxType,
    /// How much of the repository's history is there.
    pub history: History,
    /// What its checkout holds.
    pub parts: Parts,
    /// When the order was made, in microseconds since 1970: tells apart the orders that had its id one
    /// after another.
    pub generation: Option<i64>,
    /// How often the order has begun anew: what was made before is not its sandbox.
    pub restarts: i32,
}

/// How much of a repository's history is fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum History {
    /// All of it.
    #[default]
    Full,
    /// The last commit of each branch; tags are left out.
    Shallow,
}

/// What a checkout holds of a repository, and what beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// The folders that are checked out, beside the files above them; empty: everything.
    #[serde(default)]
    pub sparse: Vec<SparsePath>,
    /// Files of Git LFS are fetched, and sent; otherwise the checkout holds their pointers.
    #[serde(default)]
    pub lfs: bool,
    /// Submodules are fetched, from the hosts that orders may name.
    #[serde(default)]
    pub submodules: bool,
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
