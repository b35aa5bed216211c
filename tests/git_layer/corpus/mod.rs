//! Hostile repositories and `.git` folders, as tables, and what it takes to run the product over them.

pub mod left_behind;
pub mod served;
pub mod yard;

/// How the product has to deal with a case.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// Every operation works, and what was honest arrives on the remote.
    Works,
    /// Some operation refuses it, in words that contain these.
    Refused(&'static str),
    /// Refused in words that contain these where the policy of the repository has no Git LFS, else it works.
    WantsLfs(&'static str),
}

impl End {
    /// The end where nothing but the files of git is fetched (`plain`), or every part (`whole`).
    pub fn with(self, parts: &str) -> Self {
        match self {
            Self::WantsLfs(_) if parts == "whole" => Self::Works,
            Self::WantsLfs(words) => Self::Refused(words),
            end => end,
        }
    }
}
