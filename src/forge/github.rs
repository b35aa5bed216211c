//! Pull requests, issues and facts through GitHub's REST API, spoken with octocrab.

use axum::http::Method;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ForgeError, ForgeSettings, Issue, PullRequest, PullRequestOutcome, RepositoryFacts,
    github_client::{Client, Failure},
    github_reply::Rejection,
    marker,
};
use crate::domain::{Redactor, RepositoryUrl};

/// One repository on GitHub, or on a server with the same API.
#[derive(Debug, Clone)]
pub struct GitHub {
    client: Client,
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
        Client::new(url, token, settings, redactor).map(|client| Self { client })
    }

    pub(super) async fn ensure_pull_request(
        &self,
        request: &PullRequest,
    ) -> Result<PullRequestOutcome, ForgeError> {
        if !self.client.has_token() {
            return Err(ForgeError::NoToken { repository: self.client.repository() });
        }
        let request = request.presentable(self.client.redactor());
        // Every attempt begins with the search: an answer that was lost may have been a yes.
        self.client.with_retries(|| self.ensure_once(&request)).await
    }

    pub(super) async fn issue(&self, number: u64) -> Result<Issue, ForgeError> {
        let path = format!("/issues/{number}");
        let issue: IssueReply = self
            .client
            .with_retries(|| async {
                let action = "read the issue";
                self.client.call(Method::GET, &path, None, action).await.map_err(|failure| {
                    self.client.error(
                        failure,
                        action,
                        &format!("issue {number} of {}", self.client.repository()),
                    )
                })
            })
            .await?;
        Ok(Issue { title: issue.title, body: issue.body.unwrap_or_default(), url: issue.html_url })
    }

    pub(super) async fn verify(&self) -> Result<RepositoryFacts, ForgeError> {
        let facts: RepositoryReply = self
            .client
            .with_retries(|| async {
                let action = "read the facts";
                let result = self.client.call(Method::GET, "", None, action).await;
                result.map_err(|failure| {
                    self.client.error(failure, action, &self.client.repository())
                })
            })
            .await?;
        Ok(RepositoryFacts {
            name: facts.name,
            owner: facts.owner.login,
            default_branch: facts.default_branch,
        })
    }

    async fn ensure_once(&self, request: &PullRequest) -> Result<PullRequestOutcome, ForgeError> {
        match self.find(request).await? {
            Some(pull) if pull.state == "open" => self.update(pull, request).await,
            Some(pull) => Ok(PullRequestOutcome::AlreadyClosed {
                merged: pull.merged_at.is_some(),
                url: pull.html_url,
                number: pull.number,
            }),
            None => self.create(request).await,
        }
    }

    /// The pull request of the head: the open one, else the newest of those that are closed.
    async fn find(&self, request: &PullRequest) -> Result<Option<Pull>, ForgeError> {
        let action = "list the pull requests";
        let label = format!("{}:{}", self.client.owner(), request.head);
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
            pull.head.branch == request.head.as_str()
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
                match self.find(request).await? {
                    Some(pull) if pull.state == "open" => self.update(pull, request).await,
                    _ => Err(self.client.unavailable(action, "it says one exists, and lists none")),
                }
            }
            Err(Failure::Rejected(_, Rejection::UnknownHead(message))) => {
                let words = format!("{message}; has the branch {} been pushed?", request.head);
                Err(self.client.unavailable(action, &words))
            }
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
