//! Requests to GitHub's REST API: where they may go, how long they may take, when they are repeated.

use std::{fmt, future::Future, time::Duration};

use axum::{
    body::{Body, to_bytes},
    http::{Method, request},
};
use octocrab::Octocrab;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::{
    ForgeError, ForgeSettings,
    github_reply::{Rejection, Reply},
};
use crate::{
    clock::Clock,
    domain::{Redactor, RepositoryUrl},
};

/// Attempts inside one call, the first included, when the server or the network fails.
const ATTEMPTS: u32 = 4;
/// What the tokens of installed apps begin with.
const APP_TOKEN: &str = "ghs_";
/// Longest answer that is read, in bytes: thirty pull requests with the longest bodies fit.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// The API of one repository. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    octocrab: Octocrab,
    /// Root of the API.
    api: Url,
    /// Path of the API below its host, for example `/api/v3`; without a slash at its end.
    prefix: String,
    owner: String,
    name: String,
    has_token: bool,
    /// Whether the token is one of an installed app, whose rights are not those of a user.
    is_app: bool,
    timeout: Duration,
    retry_delay: Duration,
    clock: Clock,
    redactor: Redactor,
}

/// A request that was answered with something else than success, or not at all.
pub(super) enum Failure {
    Rejected(u16, Rejection),
    Forge(ForgeError),
}

impl Client {
    /// # Errors
    /// [`ForgeError::Unusable`]: the API address, the token or the repository cannot work.
    pub(super) fn new(
        url: &RepositoryUrl,
        token: Option<SecretString>,
        settings: &ForgeSettings,
        redactor: Redactor,
    ) -> Result<Self, ForgeError> {
        check_api_url(settings, url)?;
        if url.owner().contains('/') {
            return Err(ForgeError::Unusable(format!(
                "repository_url {url} has more than an owner and a name: expected \
                 https://host/owner/repository"
            )));
        }
        // Several crates bring rustls; without a chosen provider its first handshake panics. An
        // error only says that one was installed before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let origin = settings.api_url.origin().ascii_serialization();
        let mut builder = Octocrab::builder()
            .base_uri(origin)
            .map_err(|error| unusable_client(&redactor, &error))?
            .set_connect_timeout(Some(settings.timeout));
        let token = token.map(|token| checked(&token)).transpose()?;
        let has_token = token.is_some();
        let is_app = token.as_ref().is_some_and(|t| t.expose_secret().starts_with(APP_TOKEN));
        if let Some(token) = token {
            builder = builder.personal_token(token);
        }
        let octocrab = builder.build().map_err(|error| unusable_client(&redactor, &error))?;
        Ok(Self {
            octocrab,
            api: settings.api_url.clone(),
            prefix: settings.api_url.path().trim_end_matches('/').to_owned(),
            owner: url.owner().to_owned(),
            name: url.name().to_owned(),
            has_token,
            is_app,
            timeout: settings.timeout,
            retry_delay: settings.retry_delay,
            clock: settings.clock.clone(),
            redactor,
        })
    }

    /// Repeats what failed by the fault of the server or the network, a few times.
    pub(super) async fn with_retries<T, F>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, ForgeError>
    where
        F: Future<Output = Result<T, ForgeError>>,
    {
        let mut delay = self.retry_delay;
        for _ in 1..ATTEMPTS {
            match attempt().await {
                Err(error @ (ForgeError::Unavailable { .. } | ForgeError::Page { .. })) => {
                    tracing::warn!(%error, "the forge failed, asking again");
                    self.clock.sleep(self.clock.between(delay / 2, delay)).await;
                    delay *= 2;
                }
                other => return other,
            }
        }
        attempt().await
    }

    /// Asks for something of the repository; `path` is what follows its name.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        action: &'static str,
    ) -> Result<T, Failure> {
        let uri = format!("{}/repos/{}/{}{path}", self.prefix, self.owner, self.name);
        self.call_at(method, uri, body, action).await
    }

    /// The same for a path as the server named it.
    pub(super) async fn call_at<T: DeserializeOwned>(
        &self,
        method: Method,
        uri: String,
        body: Option<&Value>,
        action: &'static str,
    ) -> Result<T, Failure> {
        let reply = tokio::time::timeout(self.timeout, self.send(method, uri, body))
            .await
            .map_err(|_| format!("no answer within {:?}", self.timeout))
            .flatten()
            .map_err(|message| Failure::Forge(self.unavailable(action, &message)))?;
        if let Some(rejection) = reply.rejection() {
            return Err(Failure::Rejected(reply.status.as_u16(), rejection));
        }
        serde_json::from_slice(&reply.body).map_err(|error| {
            // Half an answer: the next one may be whole.
            let message = format!("the answer is not what was expected ({error})");
            Failure::Forge(self.unavailable(action, &message))
        })
    }

    async fn send(
        &self,
        method: Method,
        uri: String,
        body: Option<&Value>,
    ) -> Result<Reply, String> {
        let builder = request::Builder::new()
            .method(method)
            .uri(uri)
            .header("accept", "application/vnd.github+json")
            .header("x-github-api-version", "2022-11-28");
        let request = self.octocrab.build_request(builder, body).map_err(|error| causes(&error))?;
        let response = self.octocrab.execute(request).await.map_err(|error| causes(&error))?;
        let (parts, body) = response.into_parts();
        let body = to_bytes(Body::new(body), MAX_ANSWER).await.map_err(|error| causes(&error))?;
        Ok(Reply { status: parts.status, headers: parts.headers, body: body.to_vec() })
    }

    pub(super) fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    pub(super) fn unavailable(&self, action: &'static str, message: &str) -> ForgeError {
        let message = self.redactor.text(message);
        ForgeError::Unavailable { action, repository: self.repository(), message }
    }

    pub(super) fn error(&self, failure: Failure, action: &'static str, what: &str) -> ForgeError {
        let (status, rejection) = match failure {
            Failure::Rejected(status, rejection) => (status, rejection),
            Failure::Forge(error) => return error,
        };
        let repository = self.repository();
        let clean = |message: String| self.redactor.text(&message);
        match rejection {
            Rejection::Auth(message) => {
                ForgeError::Auth { repository, status, message: clean(message) }
            }
            Rejection::RateLimited(wait, message) => ForgeError::RateLimited {
                repository,
                retry_after: Some(wait),
                message: clean(message),
            },
            Rejection::NotFound => ForgeError::NotFound { what: what.to_owned() },
            Rejection::Moved(location) => {
                ForgeError::Moved { repository, location: clean(location) }
            }
            Rejection::Archived => ForgeError::Archived { repository },
            Rejection::Page(page) => ForgeError::Page { action, repository, page: clean(page) },
            Rejection::Server(message) => self.unavailable(action, &format!("{status}: {message}")),
            Rejection::UnknownHead(message)
            | Rejection::UnknownBase(message)
            | Rejection::Gone(message)
            | Rejection::Refused(message) => {
                ForgeError::Refused { action, repository, status, message: clean(message) }
            }
            Rejection::AlreadyExists | Rejection::NoCommits => {
                self.unavailable(action, "the answer does not belong to the question")
            }
        }
    }

    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// The path that a redirect leads to; nothing when that is on another server, which the token
    /// is not for.
    pub(super) fn own_path(&self, location: &str) -> Option<String> {
        let target = self.api.join(location).ok()?;
        let query = target.query().map(|query| format!("?{query}")).unwrap_or_default();
        (target.origin() == self.api.origin()).then(|| format!("{}{query}", target.path()))
    }

    /// The same API about the repository under another name; nothing when that is no name.
    pub(super) fn renamed(&self, owner: &str, name: &str) -> Option<Self> {
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        let renamed = || Self { owner: owner.to_owned(), name: name.to_owned(), ..self.clone() };
        (plain(owner) && plain(name)).then(renamed)
    }

    /// Whether `owner/name` is this repository.
    pub(super) fn is_called(&self, full_name: &str) -> bool {
        self.repository().eq_ignore_ascii_case(full_name)
    }

    /// Whether what GitHub says of the rights of the token's user tells what the token may do.
    pub(super) fn acts_for_a_user(&self) -> bool {
        self.has_token && !self.is_app
    }

    pub(super) fn has_token(&self) -> bool {
        self.has_token
    }

    pub(super) fn redactor(&self) -> &Redactor {
        &self.redactor
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GitHub({}/{})", self.owner, self.name)
    }
}

/// Sends the token only over TLS, and only about repositories of the host that the API belongs to:
/// another one of the same owner and name is another repository.
fn check_api_url(settings: &ForgeSettings, repository: &RepositoryUrl) -> Result<(), ForgeError> {
    let api = &settings.api_url;
    let loopback = match api.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    let safe = api.scheme() == "https" || (api.scheme() == "http" && loopback);
    if !safe || !api.username().is_empty() || api.password().is_some() {
        // The address is not repeated: it may hold a password.
        return Err(ForgeError::Unusable(
            "GITHUB_API_URL is not usable: expected https:// (http:// only to a loopback address), \
             without user name and password"
                .to_owned(),
        ));
    }
    if repository.host() != settings.github_host {
        return Err(ForgeError::Unusable(format!(
            "repository_url {repository} is not on {}, the host of GITHUB_API_URL, so there are no \
             issues and pull requests: leave create-pr out of the order's steps, or set \
             GITHUB_API_URL or AWO_GITHUB_HOST to what {} has",
            settings.github_host,
            repository.host()
        )));
    }
    Ok(())
}

/// A token that fits into a header; a newline from a file at its end is forgiven.
fn checked(token: &SecretString) -> Result<SecretString, ForgeError> {
    let text = token.expose_secret().trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ForgeError::Unusable(
            "the GitHub token is empty or contains a space or a control character: set GITHUB_TOKEN \
             to the token alone"
                .to_owned(),
        ));
    }
    Ok(SecretString::from(text))
}

fn unusable_client(redactor: &Redactor, error: &octocrab::Error) -> ForgeError {
    ForgeError::Unusable(redactor.text(&format!(
        "cannot prepare requests to GITHUB_API_URL: {}; are the system's CA certificates installed?",
        causes(error)
    )))
}

/// The error and what caused it, in one line: the outermost text alone only says "service error".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.lines().next().unwrap_or_default().chars().take(500).collect()
}
