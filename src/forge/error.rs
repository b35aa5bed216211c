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
    /// The repository has another address now. On the same server it is followed before anybody
    /// reads this.
    #[error(
        "the repository {repository} has moved: order the work under its new address ({location})"
    )]
    Moved {
        /// `owner/name`.
        repository: String,
        /// Where the server points to.
        location: String,
    },
    /// Nothing can be written to the repository any more.
    #[error(
        "the repository {repository} is archived, so no branch can be pushed to it: unarchive it in \
         its settings on GitHub, or order the work for another repository"
    )]
    Archived {
        /// `owner/name`.
        repository: String,
    },
    /// GitHub has closed the repository.
    #[error(
        "the repository {repository} was disabled by GitHub: its owner finds the reason on its page"
    )]
    Disabled {
        /// `owner/name`.
        repository: String,
    },
    /// The token reads the repository and may not write to it.
    #[error(
        "the GitHub token may read {repository} but not push to it: give its user write access \
         (a fine-grained token needs Contents and Pull requests, read and write), or set GITHUB_TOKEN \
         to a token that has it"
    )]
    ReadOnly {
        /// `owner/name`.
        repository: String,
    },
    /// The branch that the pull request goes to is not there.
    #[error(
        "{repository} has no branch {branch:?} for the pull request to go to: make it again and \
         requeue the order; the work is on its own branch {head}"
    )]
    NoBase {
        /// `owner/name`.
        repository: String,
        /// The missing branch.
        branch: String,
        /// The branch with the work.
        head: String,
    },
    /// The repository has no issues.
    #[error(
        "issue {number} cannot be read because {repository} has its issues switched off: switch them \
         on in its settings on GitHub, or order the work without github_issue_number and put the \
         text of the issue into the request"
    )]
    IssuesDisabled {
        /// `owner/name`.
        repository: String,
        /// The issue.
        number: u64,
    },
    /// The issue is gone for good.
    #[error(
        "issue {number} of {repository} was deleted: order the work without github_issue_number and \
         put what is to be done into the request"
    )]
    IssueDeleted {
        /// `owner/name`.
        repository: String,
        /// The issue.
        number: u64,
    },
    /// The issue belongs to another repository now.
    #[error(
        "issue {number} of {repository} was transferred to {location}: order the work for that \
         repository, or without github_issue_number and with the text of the issue in the request"
    )]
    IssueMoved {
        /// `owner/name`.
        repository: String,
        /// The issue.
        number: u64,
        /// Where it is now.
        location: String,
    },
    /// Something that is not GitHub's API answered.
    #[error(
        "asked to {action} of {repository}, the address in GITHUB_API_URL answered with a page instead \
         of data ({page}): check that address, and the proxy, firewall or login page between it and \
         this worker"
    )]
    Page {
        /// What was asked.
        action: &'static str,
        /// `owner/name`.
        repository: String,
        /// HTTP status and the title of the page.
        page: String,
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
            Self::NoToken { .. } | Self::Auth { .. } | Self::ReadOnly { .. } => ErrorClass::Auth,
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
            | Self::Page { .. }
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
