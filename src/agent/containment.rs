//! What keeps the processes of a run together, so that none outlives it: how strong that is depends on
//! what the host allows, and is said.

use std::fmt;

use serde::{Deserialize, Serialize};

/// By what a tree of processes is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mechanism {
    /// The cgroup of the run: one write kills and freezes everything in it.
    Cgroup,
    /// The shim traces every process, and the kernel kills them all when it ends, in whatever way.
    Ptrace,
    /// Signals to what is found below the shim, for as long as it lives.
    Signals,
}

impl Mechanism {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Ptrace => "ptrace",
            Self::Signals => "signals",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The mechanism that was reached, and why no stronger one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Containment {
    /// What holds the tree.
    pub by: Mechanism,
    /// Why it is only signals; `None` for the other two.
    pub missing: Option<String>,
}

impl Containment {
    /// One of the two that depend on nobody.
    pub const fn firm(by: Mechanism) -> Self {
        Self { by, missing: None }
    }

    /// Signals, for this reason.
    pub fn signals(reason: impl Into<String>) -> Self {
        Self { by: Mechanism::Signals, missing: Some(reason.into()) }
    }
}
