//! Pull requests, issues and facts through GitHub's REST API, spoken with octocrab.

use std::sync::Arc;

use axum::http::Method;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ForgeError, ForgeSettings, FoundPullRequest, Issue, PullRequest, PullRequestOutcome,
    PullRequestState, RepositoryFacts,
    github_client::{Client, Failure},
    github_reply::Rejection,
    marker,
};
use crate::domain::{BranchName, Redactor, RepositoryUrl};

/// How many redirects are followed: a repository that was renamed again answers with one.
const MOST_MOVES: usize = 3;

/// One repository on GitHub, or on a server with the same API.
#[derive(Debug, Clone)]
pub struct GitHub {
    client: Arc<Client>,
}

#[derive(Debug, Deserialize)]
struct Pull {
    number: u64,
    html_url: String,
    state: String,
    title: String,
    body: Option<String>,
    merged_at: Option<String>,
    head: Head,
}

#[derive(Debug, Deserialize)]
struct Head {
    #[serde(rename = "ref")]
    branch: String,
    label: Option<String>,
    #[serde(default)]
    sha: String,
}

impl Pull {
    fn state(&self) -> PullRequestState {
        match (self.state.as_str(), &self.merged_at) {
            ("open", _) => PullRequestState::Open,
            (_, Some(_)) => PullRequestState::Merged,
            (_, None) => PullRequestState::Closed,
        }
    }
}

#[derive(Debug, Deserialize)]
struct Comparison {
    ahead_by: u64,
}

#[derive(Debug, Deserialize)]
struct IssueReply {
    title: String,
    body: Option<String>,
    html_url: String,
}

#[derive(Debug, Deserialize)]
struct RepositoryReply {
    name: String,
    owner: Owner,
    default_branch: String,
    #[serde(default)]
    archived: bool,
    #[serde(default)]
    disabled: bool,
    permissions: Option<Permissions>,
}

#[derive(Debug, Deserialize)]
struct Permissions {
    pull: bool,
    push: bool,
}

#[derive(Debug, Deserialize)]
struct Owner {
    login: String,
}

impl GitHub {
    /// # Errors
    /// [`ForgeError::Unusable`]: the API address, the token or the repository cannot work.
    pub(super) fn new(
        url: &RepositoryUrl,
        token: Option<SecretString>,
        settings: &ForgeSettings,
        redactor: Redactor,
    ) -> Result<Self, ForgeError> {
        let client = Arc::new(Client::new(url, token, settings, redactor)?);
        Ok(Self { client })
    }

    pub(super) fn require_token(&self) -> Result<(), ForgeError> {
        if self.client.has_token() {
            return Ok(());
        }
        Err(ForgeError::NoToken { repository: self.client.repository() })
    }

    pub(super) async fn ensure_pull_request(
        &self,
        request: &PullRequest,
    ) -> Result<PullRequestOutcome, ForgeError> {
        self.require_token()?;
        let request = &request.presentable(self.client.redactor());
        // Every attempt begins with the search: an answer that was lost may have been a yes.
        self.following(|here| async move {
            here.client.with_retries(|| here.ensure_once(request)).await
        })
        .await
    }

    pub(super) async fn find_pull_request(
        &self,
        head: &BranchName,
        url: Option<&str>,
        commit: Option<&str>,
    ) -> Result<Option<FoundPullRequest>, ForgeError> {
        let number = url.and_then(|url| url.rsplit('/').next()?.parse::<u64>().ok());
        self.following(|here| async move {
            here.client.with_retries(|| here.find_once(head, number, commit)).await
        })
        .await
    }

    pub(super) async fn issue(&self, number: u64) -> Result<Issue, ForgeError> {
        let read = self.following(|here| async move {
            here.client.with_retries(|| here.issue_once(number)).await
        });
        let issue = match read.await {
            Err(ForgeError::Moved { repository, location }) => {
                // The repository is where it was: it is the issue that has left.
                let location = self.address_at(&location).await.unwrap_or(location);
                return Err(ForgeError::IssueMoved { repository, number, location });
            }
            other => other?,
        };
        Ok(Issue { title: issue.title, body: issue.body.unwrap_or_default(), url: issue.html_url })
    }

    async fn issue_once(&self, number: u64) -> Result<IssueReply, ForgeError> {
        let action = "read the issue";
        let path = format!("/issues/{number}");
        let repository = self.client.repository();
        match self.client.call(Method::GET, &path, None, action).await {
            Ok(issue) => Ok(issue),
            Err(Failure::Rejected(_, Rejection::Gone(words))) if words.contains("deleted") => {
                Err(ForgeError::IssueDeleted { repository, number })
            }
            Err(Failure::Rejected(_, Rejection::Gone(_))) => {
                Err(ForgeError::IssuesDisabled { repository, number })
            }
            Err(failure) => {
                let what = format!("issue {number} of {repository}");
                Err(self.client.error(failure, action, &what))
            }
        }
    }

    /// The address for people of what a redirect leads to, where that can be read.
    async fn address_at(&self, location: &str) -> Option<String> {
        let path = self.client.own_path(location)?;
        let read = self.client.call_at::<IssueReply>(Method::GET, path, None, "read the issue");
        read.await.ok().map(|issue| issue.html_url)
    }

    pub(super) async fn verify(&self) -> Result<RepositoryFacts, ForgeError> {
        let facts = self.client.with_retries(|| self.facts()).await?;
        let may_push = facts.permissions.filter(|rights| rights.pull).map(|rights| rights.push);
        Ok(RepositoryFacts {
            name: facts.name,
            owner: facts.owner.login,
            default_branch: facts.default_branch,
            archived: facts.archived,
            disabled: facts.disabled,
            may_push: may_push.filter(|_| self.client.acts_for_a_user()),
        })
    }

    /// Reads the repository, wherever it is on this server by now.
    async fn facts(&self) -> Result<RepositoryReply, ForgeError> {
        let action = "read the facts";
        let mut answer = self.client.call(Method::GET, "", None, action).await;
        for _ in 0..MOST_MOVES {
            let Err(Failure::Rejected(_, Rejection::Moved(location))) = &answer else { break };
            let Some(path) = self.client.own_path(location) else { break };
            answer = self.client.call_at(Method::GET, path, None, action).await;
        }
        answer.map_err(|failure| self.client.error(failure, action, &self.client.repository()))
    }

    /// Does `work`, and again under the present name when the repository has another one by now.
    async fn following<T, F>(&self, work: impl Fn(Self) -> F) -> Result<T, ForgeError>
    where
        F: Future<Output = Result<T, ForgeError>>,
    {
        // Boxed, for what is awaited on the way is large.
        let moved = match Box::pin(work(self.clone())).await {
            Err(ForgeError::Moved { repository, location }) => (repository, location),
            other => return other,
        };
        let (repository, location) = moved;
        let stays = || Err(ForgeError::Moved { repository, location: location.clone() });
        if self.client.own_path(&location).is_none() {
            return stays();
        }
        let facts = Box::pin(self.verify()).await?;
        match self.client.renamed(&facts.owner, &facts.name) {
            Some(client) if !self.client.is_called(&facts.full_name()) => {
                tracing::info!(now = facts.full_name(), "the repository has moved");
                Box::pin(work(Self { client: Arc::new(client) })).await
            }
            _ => stays(),
        }
    }

    async fn ensure_once(&self, request: &PullRequest) -> Result<PullRequestOutcome, ForgeError> {
        match self.find(&request.head).await? {
            Some(pull) if pull.state() == PullRequestState::Open => {
                self.update(pull, request).await
            }
            Some(pull) => {
                let complete = self.holds(&pull, &request.commit).await?;
                if !complete && request.reopen {
                    return self.create(request).await;
                }
                Ok(PullRequestOutcome::AlreadyClosed {
                    merged: pull.state() == PullRequestState::Merged,
                    url: pull.html_url,
                    number: pull.number,
                    complete,
                })
            }
            None => self.create(request).await,
        }
    }

    async fn find_once(
        &self,
        head: &BranchName,
        number: Option<u64>,
        commit: Option<&str>,
    ) -> Result<Option<FoundPullRequest>, ForgeError> {
        let pull = match (self.find(head).await?, number) {
            (Some(pull), _) => pull,
            // The list lags behind; the pull request itself does not.
            (None, Some(number)) => match self.pull(number).await? {
                Some(pull) => pull,
                None => return Ok(None),
            },
            (None, None) => return Ok(None),
        };
        let complete = match commit {
            Some(commit) => self.holds(&pull, commit).await?,
            None => false,
        };
        let state = pull.state();
        let Pull { number, html_url: url, head: Head { sha: head, .. }, .. } = pull;
        Ok(Some(FoundPullRequest { number, url, state, head, complete }))
    }

    async fn pull(&self, number: u64) -> Result<Option<Pull>, ForgeError> {
        let action = "read the pull request";
        match self.client.call(Method::GET, &format!("/pulls/{number}"), None, action).await {
            Ok(pull) => Ok(Some(pull)),
            Err(Failure::Rejected(_, Rejection::NotFound)) => Ok(None),
            Err(failure) => Err(self.client.error(failure, action, &self.client.repository())),
        }
    }

    /// Whether a pull request holds a commit.
    async fn holds(&self, pull: &Pull, commit: &str) -> Result<bool, ForgeError> {
        if pull.head.sha == commit {
            return Ok(true);
        }
        // Somebody may have added commits to ours before it was merged.
        let action = "compare the commits";
        let path = format!("/compare/{}...{commit}?per_page=1", pull.head.sha);
        match self.client.call::<Comparison>(Method::GET, &path, None, action).await {
            Ok(comparison) => Ok(comparison.ahead_by == 0),
            Err(Failure::Rejected(_, Rejection::NotFound)) => Ok(false),
            Err(failure) => Err(self.client.error(failure, action, &self.client.repository())),
        }
    }

    /// The pull request of the head: the open one, else the newest of those that are closed.
    async fn find(&self, head: &BranchName) -> Result<Option<Pull>, ForgeError> {
        let action = "list the pull requests";
        let label = format!("{}:{head}", self.client.owner());
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("state", "all")
            .append_pair("head", &label)
            .append_pair("per_page", "30")
            .finish();
        let pulls: Vec<Pull> = self
            .client
            .call(Method::GET, &format!("/pulls?{query}"), None, action)
            .await
            .map_err(|failure| self.client.error(failure, action, &self.client.repository()))?;
        // A server that does not know the filter answers with everything.
        let ours = |pull: &Pull| {
            pull.head.branch == head.as_str()
                && pull.head.label.as_ref().is_none_or(|found| found.eq_ignore_ascii_case(&label))
        };
        Ok(pulls.into_iter().filter(ours).max_by_key(|pull| (pull.state == "open", pull.number)))
    }

    async fn create(&self, request: &PullRequest) -> Result<PullRequestOutcome, ForgeError> {
        let action = "open the pull request";
        let body = json!({
            "title": request.title,
            "head": request.head.as_str(),
            "base": request.base,
            "body": request.body,
        });
        match self.client.call::<Pull>(Method::POST, "/pulls", Some(&body), action).await {
            Ok(pull) => Ok(PullRequestOutcome::Opened { url: pull.html_url, number: pull.number }),
            Err(Failure::Rejected(_, Rejection::NoCommits)) => Ok(PullRequestOutcome::NoChanges),
            // Another replica, or a request of ours whose answer was lost, was faster.
            Err(Failure::Rejected(_, Rejection::AlreadyExists)) => {
                match self.find(&request.head).await? {
                    Some(pull) if pull.state() == PullRequestState::Open => {
                        self.update(pull, request).await
                    }
                    _ => Err(self.client.unavailable(action, "it says one exists, and lists none")),
                }
            }
            Err(Failure::Rejected(_, Rejection::UnknownHead(message))) => {
                let words = format!(
                    "{message}: it does not see the branch {}; if somebody deleted that, requeue the \
                     order from the step commit, which pushes it again",
                    request.head
                );
                Err(self.client.unavailable(action, &words))
            }
            Err(Failure::Rejected(_, Rejection::UnknownBase(_))) => Err(ForgeError::NoBase {
                repository: self.client.repository(),
                branch: request.base.clone(),
                head: request.head.to_string(),
            }),
            // The list was just read: the repository is there, and this is how a missing right looks.
            Err(Failure::Rejected(status, Rejection::NotFound)) => Err(ForgeError::Auth {
                repository: self.client.repository(),
                status,
                message: "no right to open a pull request".to_owned(),
            }),
            Err(failure) => Err(self.client.error(failure, action, &self.client.repository())),
        }
    }

    /// Replaces the text, unless a person took the marker out to keep their own.
    async fn update(
        &self,
        pull: Pull,
        request: &PullRequest,
    ) -> Result<PullRequestOutcome, ForgeError> {
        let action = "update the pull request";
        let (url, number) = (pull.html_url, pull.number);
        // GitHub's editor stores carriage returns.
        let body = pull.body.unwrap_or_default().replace("\r\n", "\n");
        let differs = pull.title != request.title || body.trim() != request.body.trim();
        if differs && body.contains(&marker(&request.order)) {
            let text = json!({ "title": request.title, "body": request.body });
            self.client
                .call::<Value>(Method::PATCH, &format!("/pulls/{number}"), Some(&text), action)
                .await
                .map_err(|failure| self.client.error(failure, action, &self.client.repository()))?;
        }
        Ok(PullRequestOutcome::Updated { url, number })
    }
}
