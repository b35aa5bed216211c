//! What can go wrong with git, as a class, a sentence, and whether trying again may help.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::domain::ErrorClass;

/// A failed git operation. No text in it holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The credential is missing, wrong, or may not do this.
    #[error("git was refused by {url}: {detail}; check that GITHUB_TOKEN is valid and may use it")]
    Auth {
        /// The remote.
        url: String,
        /// What git said.
        detail: String,
    },
    /// The remote says that there is no such repository.
    #[error(
        "repository {url} was not found: check its spelling, and that GITHUB_TOKEN may read it"
    )]
    NotFound {
        /// The remote.
        url: String,
    },
    /// The repository has no commit to start from.
    #[error("repository {url} is empty: push a first commit to it")]
    Empty {
        /// The remote.
        url: String,
    },
    /// The branch to start from is not there.
    #[error("repository {url} has no branch {branch:?}: name one that exists")]
    NoBranch {
        /// The remote.
        url: String,
        /// What was asked for.
        branch: String,
    },
    /// A name that cannot stand beside one that exists, because refs are files.
    #[error(
        "branch {branch:?} cannot be made because the repository has a branch {existing:?}: \
         rename one of them"
    )]
    BranchConflict {
        /// The new branch.
        branch: String,
        /// The one in its way.
        existing: String,
    },
    /// The network or the server failed.
    #[error("git could not reach {url}: {detail}")]
    Unreachable {
        /// The remote.
        url: String,
        /// What git said.
        detail: String,
    },
    /// A git command took too long.
    #[error("git {verb} took longer than {}", humantime::format_duration(*after))]
    Timeout {
        /// The command.
        verb: &'static str,
        /// The limit.
        after: Duration,
    },
    /// Another process held a repository cache for too long.
    #[error(
        "the lock {path} was held by another process for {}",
        humantime::format_duration(*after)
    )]
    LockTimeout {
        /// The lock file.
        path: PathBuf,
        /// How long we waited.
        after: Duration,
    },
    /// A volume is full.
    #[error("the disk is full while {doing}: {detail}")]
    DiskFull {
        /// What needed the space.
        doing: String,
        /// What the system said.
        detail: String,
    },
    /// Somebody else wrote to the branch of the order.
    #[error(
        "somebody else moved the branch {branch} to {found}: delete it or merge it by hand, then \
         requeue the order"
    )]
    BranchMoved {
        /// The branch.
        branch: String,
        /// Where it is now.
        found: String,
    },
    /// The server has a rule against this push.
    #[error("{url} refused the branch {branch}: {detail}")]
    Rejected {
        /// The remote.
        url: String,
        /// The branch.
        branch: String,
        /// What the server said.
        detail: String,
    },
    /// The repository cache is damaged; the next refresh makes a new one.
    #[error("the repository cache {path} is damaged ({detail}): it is made again on the next try")]
    DamagedCache {
        /// The mirror.
        path: PathBuf,
        /// What git said.
        detail: String,
    },
    /// A folder that archon-awo did not make, so it is neither used nor removed.
    #[error("{path} has no .archon-sandbox marker: move it away if archon-awo may use this name")]
    NotASandbox {
        /// The folder.
        path: PathBuf,
    },
    /// An order came back with another branch.
    #[error("the sandbox of this order is on branch {found:?}, not on {expected:?}")]
    OtherBranch {
        /// What was asked for.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The checkout was replaced or removed.
    #[error("the checkout {path} is gone or is not a folder any more")]
    NoCheckout {
        /// The checkout.
        path: PathBuf,
    },
    /// The agent left more than a commit should hold.
    #[error(
        "the sandbox has {found_mib} MiB of new or changed files, more than {limit_mib} MiB: add \
         build output to .gitignore"
    )]
    TooMuch {
        /// What was found, in MiB.
        found_mib: u64,
        /// The limit, in MiB.
        limit_mib: u64,
    },
    /// A value git could not be given.
    #[error("{0}")]
    Unusable(String),
    /// The git program could not be started.
    #[error("cannot start {program}: install git, or correct its path")]
    NoGit {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A git command failed in a way that has no name here.
    #[error("git {verb} failed: {detail}")]
    Failed {
        /// The command.
        verb: &'static str,
        /// What git said.
        detail: String,
    },
    /// libgit2 failed.
    #[error("cannot {doing}")]
    Library {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: git2::Error,
    },
    /// The file system failed.
    #[error("cannot {doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The runtime is shutting down.
    #[error("the work was interrupted by a shutdown")]
    Interrupted,
}

impl GitError {
    /// The class that is stored with a failed step.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Auth { .. } => ErrorClass::Auth,
            Self::Timeout { .. } => ErrorClass::Timeout,
            Self::DiskFull { .. } => ErrorClass::Disk,
            Self::File { source, .. } if is_full(source) => ErrorClass::Disk,
            Self::Library { source, .. } if meaning(source.message()) == Some(Meaning::Full) => {
                ErrorClass::Disk
            }
            Self::NoBranch { .. }
            | Self::BranchConflict { .. }
            | Self::OtherBranch { .. }
            | Self::TooMuch { .. }
            | Self::Unusable(_) => ErrorClass::Invalid,
            _ => ErrorClass::Git,
        }
    }

    /// Whether the same call may succeed later without anybody's help.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::LockTimeout { .. }
            | Self::DiskFull { .. }
            | Self::DamagedCache { .. }
            | Self::Failed { .. }
            | Self::Library { .. }
            | Self::File { .. }
            | Self::Interrupted => true,
            Self::Auth { .. }
            | Self::NotFound { .. }
            | Self::Empty { .. }
            | Self::NoBranch { .. }
            | Self::BranchConflict { .. }
            | Self::BranchMoved { .. }
            | Self::Rejected { .. }
            | Self::NotASandbox { .. }
            | Self::OtherBranch { .. }
            | Self::NoCheckout { .. }
            | Self::TooMuch { .. }
            | Self::Unusable(_)
            | Self::NoGit { .. } => false,
        }
    }

    /// The error and its causes as one sentence, for people who see nothing else.
    pub fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }

    pub(super) fn library(doing: &'static str) -> impl FnOnce(git2::Error) -> Self {
        move |source| Self::Library { doing, source }
    }

    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Words of git and curl, in lower case, and what they mean. The first match decides, so the
/// specific ones stand first. Git's own words are fixed by `LC_ALL=C`.
const MEANINGS: &[(&str, Meaning)] = &[
    ("no space left on device", Meaning::Full),
    ("disk quota exceeded", Meaning::Full),
    ("without `workflow` scope", Meaning::Auth),
    ("authentication failed", Meaning::Auth),
    ("could not read username", Meaning::Auth),
    ("could not read password", Meaning::Auth),
    ("returned error: 401", Meaning::Auth),
    ("returned error: 403", Meaning::Auth),
    ("permission to ", Meaning::Auth),
    ("write access to repository not granted", Meaning::Auth),
    ("returned error: 404", Meaning::NotFound),
    ("repository not found", Meaning::NotFound),
    ("does not appear to be a git repository", Meaning::NotFound),
    ("returned error: 5", Meaning::Network),
    ("returned error: 429", Meaning::Network),
    ("could not resolve host", Meaning::Network),
    ("could not resolve proxy", Meaning::Network),
    ("failed to connect", Meaning::Network),
    ("couldn't connect to server", Meaning::Network),
    ("connection refused", Meaning::Network),
    ("connection reset", Meaning::Network),
    ("connection timed out", Meaning::Network),
    ("operation timed out", Meaning::Network),
    ("operation too slow", Meaning::Network),
    ("unexpected disconnect", Meaning::Network),
    ("the remote end hung up", Meaning::Network),
    ("early eof", Meaning::Network),
    ("rpc failed", Meaning::Network),
    ("empty reply from server", Meaning::Network),
    ("gnutls_handshake", Meaning::Network),
    ("ssl_error_syscall", Meaning::Network),
    ("loose object", Meaning::Damaged),
    ("bad object", Meaning::Damaged),
    ("bad tree object", Meaning::Damaged),
    ("missing blob", Meaning::Damaged),
    ("unable to read tree", Meaning::Damaged),
    ("unable to read sha1 file", Meaning::Damaged),
    ("inflate: data stream error", Meaning::Damaged),
    ("packfile", Meaning::Damaged),
    ("object file", Meaning::Damaged),
    ("did not send all necessary objects", Meaning::Damaged),
    ("not a git repository", Meaning::Damaged),
    ("bad config", Meaning::Damaged),
    ("reference broken", Meaning::Damaged),
    ("invalid sha1 pointer", Meaning::Damaged),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Full,
    Auth,
    NotFound,
    Network,
    Damaged,
}

/// What the words of a failed git command mean.
pub(super) fn meaning(stderr: &str) -> Option<Meaning> {
    let text = stderr.to_ascii_lowercase();
    // These have a name in their middle: "repository 'https://…' not found", and the same for a
    // remote in a folder, which must not be taken for a damaged cache.
    if text.contains("repository '")
        && ["' not found", "' does not exist"].iter().any(|words| text.contains(words))
    {
        return Some(Meaning::NotFound);
    }
    MEANINGS.iter().find(|(words, _)| text.contains(words)).map(|(_, meaning)| *meaning)
}

/// The lines of git's output that say what is wrong, on one line.
pub(super) fn summary(stderr: &str) -> String {
    const LIMIT: usize = 600;
    let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let told = |line: &&str| {
        ["fatal:", "error:", "remote:", "!"].iter().any(|mark| line.starts_with(mark))
    };
    let mut chosen: Vec<&str> = lines().filter(told).collect();
    if chosen.is_empty() {
        chosen = lines().collect();
    }
    let mut text = chosen.join("; ");
    if text.len() > LIMIT {
        let end = (0..=LIMIT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    if text.is_empty() { "it gave no reason".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::{Meaning, meaning, summary};

    #[test]
    fn gits_words_have_one_meaning_each() {
        let cases = [
            ("fatal: Authentication failed for 'https://h/a/b/'", Meaning::Auth),
            (
                "fatal: could not read Username for 'https://h': terminal prompts disabled",
                Meaning::Auth,
            ),
            (
                "remote: Permission to a/b.git denied to bot.\nfatal: unable to access 'https://h/': The requested URL returned error: 403",
                Meaning::Auth,
            ),
            (
                "remote: Repository not found.\nfatal: repository 'https://h/a/b/' not found",
                Meaning::NotFound,
            ),
            ("fatal: repository 'https://h/a/b/' not found", Meaning::NotFound),
            ("fatal: '/srv/x' does not appear to be a git repository", Meaning::NotFound),
            ("fatal: unable to access 'https://h/': Could not resolve host: h", Meaning::Network),
            (
                "error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502",
                Meaning::Network,
            ),
            ("fatal: write error: No space left on device", Meaning::Full),
            ("error: inflate: data stream error (incorrect data check)", Meaning::Damaged),
        ];
        for (words, expected) in cases {
            assert_eq!(meaning(words), Some(expected), "{words}");
        }
        assert_eq!(meaning("fatal: something new"), None);
    }

    #[test]
    fn a_summary_keeps_the_reason_and_has_a_limit() {
        let stderr = format!("Cloning into 'x'...\nfatal: no\n{}", "error: é\n".repeat(500));
        let text = summary(&stderr);
        assert!(text.starts_with("fatal: no; error"), "{text}");
        assert!(text.len() < 610);
        assert_eq!(summary(""), "it gave no reason");
    }
}
