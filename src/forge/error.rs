//! Why a forge did not do what was asked, and whether asking again later can help.

use std::{path::PathBuf, time::Duration};

use crate::{disk, domain::ErrorClass};

/// A failure of a forge. Its text is safe to store and show: secrets have been taken out.
#[derive(Debug, thiserror::Error)]
pub enum ForgeError {
    /// The settings cannot work, whatever the forge answers.
    #[error("{0}")]
    Unusable(String),
    /// There is no credential for something that needs one.
    #[error(
        "no GitHub token for {repository}: set GITHUB_TOKEN, or github_token_awo in the settings"
    )]
    NoToken {
        /// `owner/name`.
        repository: String,
    },
    /// The credential was refused (401), or lacks a permission (403).
    #[error(
        "github refused the token for {repository} ({status}: {message}): check that it has not \
         expired and has the permissions Contents and Pull requests (read and write)"
    )]
    Auth {
        /// `owner/name`.
        repository: String,
        /// HTTP status.
        status: u16,
        /// GitHub's own words.
        message: String,
    },
    /// Too many requests.
    #[error("github limits the rate of requests for {repository} ({message}): try again later")]
    RateLimited {
        /// `owner/name`.
        repository: String,
        /// How long GitHub asks us to wait.
        retry_after: Option<Duration>,
        /// GitHub's own words.
        message: String,
    },
    /// The network failed, or the server did; the next attempt may succeed.
    #[error("github could not {action} of {repository}: {message}")]
    Unavailable {
        /// What was asked.
        action: &'static str,
        /// `owner/name`.
        repository: String,
        /// What happened.
        message: String,
    },
    /// What was asked for does not exist, or is hidden from this token.
    #[error(
        "github does not know {what}: check the address, and that the token may read the repository"
    )]
    NotFound {
        /// The repository or the issue.
        what: String,
    },
    /// The repository has another address now.
    #[error(
        "the repository {repository} has moved: order the work under its new address ({location})"
    )]
    Moved {
        /// `owner/name`.
        repository: String,
        /// Where the server points to.
        location: String,
    },
    /// The forge understood and said no.
    #[error("github refused to {action} of {repository} ({status}): {message}")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// `owner/name`.
        repository: String,
        /// HTTP status.
        status: u16,
        /// GitHub's own words.
        message: String,
    },
    /// Something that a `file://` remote must have is not there.
    #[error("{what} is missing in {repository}: {advice}", repository = repository.display())]
    Missing {
        /// What was looked for.
        what: String,
        /// The folder of the remote.
        repository: PathBuf,
        /// What to do.
        advice: &'static str,
    },
    /// A file of a `file://` remote could not be read or written.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    File {
        /// `read`, `write`, `lock`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Git failed on a `file://` remote.
    #[error("git {verb} failed in {repository}: {message}", repository = repository.display())]
    Git {
        /// The subcommand.
        verb: &'static str,
        /// The folder of the remote.
        repository: PathBuf,
        /// What git said.
        message: String,
    },
    /// Another process held the lock of a `file://` remote for too long.
    #[error("{path} was locked for more than {waited:?} by another process", path = path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
}

impl ForgeError {
    /// The class under which the failure is stored.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unusable(_) => ErrorClass::Invalid,
            Self::NoToken { .. } | Self::Auth { .. } => ErrorClass::Auth,
            Self::RateLimited { .. } => ErrorClass::RateLimited,
            Self::File { source, .. } if disk::is_full(source) => ErrorClass::Disk,
            _ => ErrorClass::Forge,
        }
    }

    /// Whether the same call may succeed later. Stricter than [`ErrorClass::is_transient`], which
    /// cannot tell a server that is down from one that said no.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::RateLimited { .. }
            | Self::Unavailable { .. }
            | Self::Git { .. }
            | Self::Locked { .. } => true,
            Self::File { source, .. } => disk::is_full(source),
            _ => false,
        }
    }

    /// How long the forge asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
