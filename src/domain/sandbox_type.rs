//! Whose objects the checkout of an order reads: the cache's or its own.

use std::{fmt, str::FromStr};

/// The form of a sandbox, under the name that orders give it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SandboxType {
    /// Objects are borrowed from the repository's cache: it costs the time and space of its files.
    #[default]
    GitWorktree,
    /// A clone that stands alone: it outlives the cache, and its agent sees nothing of the cache.
    GitBranch,
}

/// A form nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("sandbox_type is {0:?}: expected git_worktree or git_branch")]
pub struct InvalidSandboxType(String);

impl SandboxType {
    /// Its name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GitWorktree => "git_worktree",
            Self::GitBranch => "git_branch",
        }
    }
}

impl fmt::Display for SandboxType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SandboxType {
    type Err = InvalidSandboxType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = [Self::GitWorktree, Self::GitBranch];
        let found = known.into_iter().find(|form| form.as_str() == text);
        found.ok_or_else(|| InvalidSandboxType(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::SandboxType;

    #[test]
    fn names_are_read_back_and_others_refused() {
        for form in [SandboxType::GitWorktree, SandboxType::GitBranch] {
            assert_eq!(form.to_string().parse(), Ok(form));
        }
        for text in ["", "docker", "GIT_BRANCH"] {
            assert!(text.parse::<SandboxType>().is_err(), "{text:?}");
        }
    }
}
