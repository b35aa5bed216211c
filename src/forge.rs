//! Where pull requests live: GitHub over REST, or a folder for `file://` remotes. Without the rule
//! "find by head, else create" kept here, a crash would leave an order with two pull requests.

mod error;
mod found;
mod github;
mod github_client;
mod github_reply;
mod local;
mod pull_file;

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use tracing::Instrument as _;
use url::Url;

pub use self::{
    error::ForgeError,
    found::{FoundPullRequest, PullRequestState},
    github::GitHub,
    local::LocalForge,
};
use crate::{
    clock::Clock,
    domain::{BranchName, Redactor, RepositoryUrl, Scheme, WorkOrderId},
    local_remotes::LocalRemotes,
};

/// Longest title that is sent, in characters; GitHub refuses more than 256.
const MAX_TITLE: usize = 256;
/// Longest body that is sent, in characters, without the marker; GitHub refuses more than 65,536.
const MAX_BODY: usize = 65_000;

/// How forges are reached. One value serves every repository of a worker.
#[derive(Debug, Clone)]
pub struct ForgeSettings {
    /// Root of GitHub's REST API (`GITHUB_API_URL`): `https`, or `http` to a loopback address.
    pub api_url: Url,
    /// The host of the repositories that API is about (`AWO_GITHUB_HOST`); it has no others.
    pub github_host: String,
    /// Longest wait for one request or one git command, answer included. Default 30 s.
    pub timeout: Duration,
    /// Wait before the first retry inside one call; doubles each time, with jitter. Default 0.5 s.
    pub retry_delay: Duration,
    /// The git program, for `file://` remotes. Default `git`, found through `search_path`.
    pub git_binary: PathBuf,
    /// `PATH` of the git program; empty when `git_binary` is absolute.
    pub search_path: String,
    /// Waits between retries.
    pub clock: Clock,
    /// Which folders may be remotes. Default: any.
    pub local_remotes: LocalRemotes,
}

impl ForgeSettings {
    /// Settings with the default waits.
    pub fn new(
        api_url: Url,
        github_host: impl Into<String>,
        git_binary: impl Into<PathBuf>,
        clock: Clock,
    ) -> Self {
        Self {
            api_url,
            github_host: github_host.into(),
            timeout: Duration::from_secs(30),
            retry_delay: Duration::from_millis(500),
            git_binary: git_binary.into(),
            search_path: "/usr/local/bin:/usr/bin:/bin".to_owned(),
            clock,
            local_remotes: LocalRemotes::default(),
        }
    }
}

/// The pull request a work order wants to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// Whose it is; written into the body as a hidden marker.
    pub order: WorkOrderId,
    /// The branch with the work. It must have been pushed.
    pub head: BranchName,
    /// The branch it is to be merged into.
    pub base: String,
    /// One line.
    pub title: String,
    /// Markdown.
    pub body: String,
    /// The commit that was pushed as the head.
    pub commit: String,
    /// Whether another one is opened where an earlier one was merged or closed without this commit.
    pub reopen: bool,
}

/// What is true after [`Forge::ensure_pull_request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullRequestOutcome {
    /// It did not exist and does now.
    Opened {
        /// Address for people.
        url: String,
        /// Number in its repository.
        number: u64,
    },
    /// It was open already. Its text was replaced when it still carries the order's marker.
    Updated {
        /// Address for people.
        url: String,
        /// Number in its repository.
        number: u64,
    },
    /// Somebody merged or closed it; it is left as it is and no second one is opened.
    AlreadyClosed {
        /// Address for people.
        url: String,
        /// Number in its repository.
        number: u64,
        /// Merged rather than closed.
        merged: bool,
        /// Whether it holds the commit of the request: if not, nobody sees that.
        complete: bool,
    },
    /// The head has no commit that the base lacks.
    NoChanges,
}

impl PullRequestOutcome {
    /// The address of the pull request, where there is one.
    pub fn url(&self) -> Option<&str> {
        match self {
            Self::Opened { url, .. }
            | Self::Updated { url, .. }
            | Self::AlreadyClosed { url, .. } => Some(url),
            Self::NoChanges => None,
        }
    }
}

/// An issue, as its author wrote it: untrusted text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// One line.
    pub title: String,
    /// Markdown; empty when the author wrote none.
    pub body: String,
    /// Address for people.
    pub url: String,
}

/// What a forge says about a repository it lets us read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryFacts {
    /// Name without the owner.
    pub name: String,
    /// User or organisation; `local` for a folder.
    pub owner: String,
    /// The branch that pull requests go to unless told otherwise.
    pub default_branch: String,
    /// Whether it takes no writes any more.
    pub archived: bool,
    /// Whether the forge has closed it.
    pub disabled: bool,
    /// Whether the token may push; nothing where that is not known.
    pub may_push: Option<bool>,
}

impl RepositoryFacts {
    /// `owner/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// Proves that a branch may be pushed, as far as the forge knows.
    ///
    /// # Errors
    /// What is in the way, and what to do about it.
    pub fn require_writable(&self) -> Result<(), ForgeError> {
        let repository = self.full_name();
        if self.archived {
            Err(ForgeError::Archived { repository })
        } else if self.disabled {
            Err(ForgeError::Disabled { repository })
        } else if self.may_push == Some(false) {
            Err(ForgeError::ReadOnly { repository })
        } else {
            Ok(())
        }
    }
}

/// The forge of one repository. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Forge {
    /// GitHub, or a server with the same REST API.
    GitHub(GitHub),
    /// A folder on this host.
    Local(LocalForge),
}

impl Forge {
    /// The forge that belongs to the scheme of `url`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Settings that cannot work: see [`ForgeError::Unusable`].
    pub fn for_remote(
        url: &RepositoryUrl,
        token: Option<SecretString>,
        settings: &ForgeSettings,
        redactor: Redactor,
    ) -> Result<Self, ForgeError> {
        match url.scheme() {
            Scheme::Https => GitHub::new(url, token, settings, redactor).map(Self::GitHub),
            Scheme::File => LocalForge::new(url, settings, redactor).map(Self::Local),
        }
    }

    /// Makes the pull request of `request.head` exist, once: finds it by its head, else creates
    /// it. May be repeated after a lost answer or a crash, by any replica.
    ///
    /// # Errors
    /// [`ForgeError::is_retryable`] tells whether a later call may succeed; short retries have
    /// been made by then.
    pub async fn ensure_pull_request(
        &self,
        request: &PullRequest,
    ) -> Result<PullRequestOutcome, ForgeError> {
        let span = tracing::info_span!("forge.ensure_pull_request", work_order.id = %request.order);
        match self {
            Self::GitHub(github) => github.ensure_pull_request(request).instrument(span).await,
            Self::Local(local) => local.ensure_pull_request(request).instrument(span).await,
        }
    }

    /// Finds the pull request of `head`: the open one, else the newest. `url` is where one was last
    /// seen, and `commit` what it is asked about ([`FoundPullRequest::complete`]).
    ///
    /// # Errors
    /// The forge cannot be read.
    pub async fn find_pull_request(
        &self,
        head: &BranchName,
        url: Option<&str>,
        commit: Option<&str>,
    ) -> Result<Option<FoundPullRequest>, ForgeError> {
        let span = tracing::info_span!("forge.find_pull_request", branch = %head);
        match self {
            Self::GitHub(github) => {
                github.find_pull_request(head, url, commit).instrument(span).await
            }
            Self::Local(local) => local.find_pull_request(head, commit).instrument(span).await,
        }
    }

    /// Whether there is what it takes to open pull requests.
    ///
    /// # Errors
    /// There is not: what is missing.
    pub fn require_token(&self) -> Result<(), ForgeError> {
        match self {
            Self::GitHub(github) => github.require_token(),
            Self::Local(_) => Ok(()),
        }
    }

    /// Reads an issue.
    ///
    /// # Errors
    /// The issue does not exist, or the forge cannot be read.
    pub async fn issue(&self, number: u64) -> Result<Issue, ForgeError> {
        let span = tracing::info_span!("forge.issue", issue.number = number);
        match self {
            Self::GitHub(github) => github.issue(number).instrument(span).await,
            Self::Local(local) => local.issue(number).instrument(span).await,
        }
    }

    /// Proves that the repository can be read with these settings. One that was renamed or transferred
    /// on the same server answers under its present name.
    ///
    /// # Errors
    /// What is wrong, as a sentence for the person who configured it.
    pub async fn verify(&self) -> Result<RepositoryFacts, ForgeError> {
        let span = tracing::info_span!("forge.verify");
        match self {
            Self::GitHub(github) => github.verify().instrument(span).await,
            Self::Local(local) => local.verify().instrument(span).await,
        }
    }
}

/// The hidden line by which a pull request says whose it is.
pub fn marker(order: &WorkOrderId) -> String {
    format!("<!-- archon-awo:{order} -->")
}

impl PullRequest {
    /// The same request as it may leave the machine: without secrets, within the forge's limits,
    /// with the marker as the last line of its body.
    fn presentable(&self, redactor: &Redactor) -> Self {
        let marker = marker(&self.order);
        let title = redactor.page(&self.title);
        let title: String =
            title.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TITLE).collect();
        let mut body = redactor.page(&self.body);
        // Taking one out can join the halves of another.
        while body.contains(&marker) {
            body = body.replace(&marker, "");
        }
        let body: String = body.chars().take(MAX_BODY).collect();
        let body = format!("{}\n\n{marker}\n", body.trim_end());
        Self { title: title.trim().to_owned(), body, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{PullRequest, marker};
    use crate::domain::Redactor;

    proptest! {
        #[test]
        fn what_is_sent_fits_and_carries_the_marker_once(title in "\\PC*", body in ".*") {
            let order = "wo-1".parse().unwrap();
            let mark = marker(&order);
            let request = PullRequest {
                order,
                head: "feat/x".parse().unwrap(),
                base: "main".to_owned(),
                title,
                commit: "c".repeat(40),
                reopen: false,
                body: format!("{body}<!-- archon{mark}-awo:wo-1 -->{mark}{body}"),
            };
            let sent = request.presentable(&Redactor::default());
            prop_assert!(sent.title.chars().count() <= super::MAX_TITLE);
            prop_assert!(sent.body.chars().count() <= super::MAX_BODY + mark.len() + 3);
            prop_assert_eq!(sent.body.matches(&mark).count(), 1);
        }
    }
}
