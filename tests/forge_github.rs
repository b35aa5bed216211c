//! Pull requests on GitHub: one per head, whatever the server and the network do. Runs against the
//! fake of `support/fake_github.rs`.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/fake_github.rs"]
mod fake_github;

use std::time::Duration;

use archon_awo::{
    clock::Clock,
    domain::{ErrorClass, Redactor, RemoteRules, RepositoryUrl},
    forge::{
        Forge, ForgeError, ForgeSettings, PullRequest, PullRequestOutcome as Outcome,
        PullRequestState, marker,
    },
};
use axum::http::Method;
use fake_github::{FakeGitHub, Fault, Merge, TOKEN};
use secrecy::SecretString;
use serde_json::json;

/// What a branch is said to end with, where nobody asks.
const COMMIT: &str = "0000000000000000000000000000000000000001";
const BRANCH: &str = "feat/add+more-wo-1";

fn repository(text: &str) -> RepositoryUrl {
    let allowed_hosts = vec!["github.com".to_owned(), "git.example".to_owned()];
    RepositoryUrl::parse(text, &RemoteRules { allowed_hosts, allow_local: false }).unwrap()
}

fn settings(api_url: &str) -> ForgeSettings {
    let mut settings =
        ForgeSettings::new(api_url.parse().unwrap(), "github.com", "git", Clock::system());
    settings.retry_delay = Duration::from_millis(1);
    settings.timeout = Duration::from_secs(10);
    settings
}

fn forge_with(github: &FakeGitHub, repository_url: &str, token: Option<&str>) -> Forge {
    let token = token.map(SecretString::from);
    let settings = settings(&github.api_url);
    Forge::for_remote(&repository(repository_url), token, &settings, Redactor::default()).unwrap()
}

fn forge(github: &FakeGitHub) -> Forge {
    forge_with(github, "acme/app", Some(TOKEN))
}

fn request() -> PullRequest {
    PullRequest {
        order: "wo-1".parse().unwrap(),
        head: BRANCH.parse().unwrap(),
        base: "main".to_owned(),
        title: "Add more".to_owned(),
        body: "There was less.".to_owned(),
        commit: COMMIT.to_owned(),
        reopen: false,
    }
}

async fn with_branch() -> FakeGitHub {
    let github = FakeGitHub::start().await;
    github.push(BRANCH, true);
    github
}

fn answer(status: u16, headers: &[(&'static str, &str)], message: &str) -> Fault {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Fault::Answer(status, headers, json!({ "message": message }))
}

async fn refusal(github: &FakeGitHub) -> ForgeError {
    forge(github).ensure_pull_request(&request()).await.unwrap_err()
}

fn count(github: &FakeGitHub, request: &str) -> usize {
    github.requests().iter().filter(|made| *made == request).count()
}

#[tokio::test]
async fn a_missing_pull_request_is_opened_with_its_marker() {
    let github = with_branch().await;
    let outcome = forge(&github).ensure_pull_request(&request()).await.unwrap();
    let url = "https://github.com/acme/app/pull/1".to_owned();
    assert_eq!(outcome, Outcome::Opened { url, number: 1 });
    let pull = &github.pulls()[0];
    assert_eq!(pull["title"], "Add more");
    assert_eq!(pull["head"]["ref"], BRANCH);
    assert!(pull["body"].as_str().unwrap().contains(&marker(&request().order)));
}

#[tokio::test]
async fn an_open_one_is_updated_and_left_alone_when_nothing_differs() {
    let github = with_branch().await;
    let forge = forge(&github);
    forge.ensure_pull_request(&request()).await.unwrap();
    let again = forge.ensure_pull_request(&request()).await.unwrap();
    assert!(matches!(again, Outcome::Updated { number: 1, .. }), "{again:?}");
    assert_eq!(count(&github, "PATCH acme/app/pulls/1"), 0);

    let changed = PullRequest { title: "Add much more".to_owned(), ..request() };
    forge.ensure_pull_request(&changed).await.unwrap();
    assert_eq!(github.pulls().len(), 1);
    assert_eq!(github.pulls()[0]["title"], "Add much more");
}

#[tokio::test]
async fn a_person_who_removes_the_marker_keeps_their_words() {
    let github = with_branch().await;
    let forge = forge(&github);
    forge.ensure_pull_request(&request()).await.unwrap();
    github.edit_pull(1, &json!({"title": "My title", "body": "My words"}));
    let outcome = forge.ensure_pull_request(&request()).await.unwrap();
    assert!(matches!(outcome, Outcome::Updated { number: 1, .. }), "{outcome:?}");
    assert_eq!(github.pulls()[0]["title"], "My title");
}

#[tokio::test]
async fn a_merged_or_closed_one_is_recorded_and_not_opened_again() {
    let github = with_branch().await;
    let forge = forge(&github);
    forge.ensure_pull_request(&request()).await.unwrap();
    for (merged_at, merged) in [(json!(null), false), (json!("2026-01-01T00:00:00Z"), true)] {
        github.edit_pull(1, &json!({"state": "closed", "merged_at": merged_at}));
        let outcome = forge.ensure_pull_request(&request()).await.unwrap();
        let url = "https://github.com/acme/app/pull/1".to_owned();
        assert_eq!(outcome, Outcome::AlreadyClosed { url, number: 1, merged, complete: false });
    }
    assert_eq!(github.pulls().len(), 1);
}

#[tokio::test]
async fn a_closed_one_is_complete_when_it_holds_the_commit_and_else_followed_by_another() {
    let github = FakeGitHub::start().await;
    let first = github.push(BRANCH, true);
    let forge = forge(&github);
    let request = PullRequest { commit: first, reopen: true, ..request() };
    forge.ensure_pull_request(&request).await.unwrap();
    // A person adds a commit and merges both.
    let second = github.push_onto(BRANCH);
    github.merge(1, Merge::Squash);
    for commit in [request.commit.clone(), second.clone()] {
        let request = PullRequest { commit, ..request.clone() };
        let outcome = forge.ensure_pull_request(&request).await.unwrap();
        assert!(matches!(outcome, Outcome::AlreadyClosed { complete: true, .. }), "{outcome:?}");
    }
    let third = github.push_onto(BRANCH);
    let request = PullRequest { commit: third.clone(), ..request };
    let kept = PullRequest { reopen: false, ..request.clone() };
    let outcome = forge.ensure_pull_request(&kept).await.unwrap();
    assert!(matches!(outcome, Outcome::AlreadyClosed { complete: false, .. }), "{outcome:?}");
    let found = forge.find_pull_request(&request.head, None, Some(&second)).await.unwrap().unwrap();
    assert_eq!((found.state, found.complete), (PullRequestState::Merged, true));
    for expected in ["Opened", "Updated"] {
        let outcome = format!("{:?}", forge.ensure_pull_request(&request).await.unwrap());
        assert!(outcome.starts_with(expected) && outcome.contains("number: 2"), "{outcome}");
    }
    let found = forge.find_pull_request(&request.head, None, Some(&third)).await.unwrap().unwrap();
    assert_eq!((found.number, found.state), (2, PullRequestState::Open));
}

#[tokio::test]
async fn a_renamed_repository_is_followed_with_every_request() {
    let github = with_branch().await;
    github.file_issue(7, "It is slow", None);
    github.rename("other/name");
    let forge = forge(&github);
    let outcome = forge.ensure_pull_request(&request()).await.unwrap();
    let url = "https://github.com/other/name/pull/1".to_owned();
    assert_eq!(outcome, Outcome::Opened { url, number: 1 });
    let changed = PullRequest { title: "Add much more".to_owned(), ..request() };
    forge.ensure_pull_request(&changed).await.unwrap();
    assert_eq!(github.pulls()[0]["title"], "Add much more");
    assert_eq!(forge.issue(7).await.unwrap().title, "It is slow");
    assert_eq!(forge.verify().await.unwrap().full_name(), "other/name");
}

#[tokio::test]
async fn a_redirect_that_leads_nowhere_ends() {
    let github = with_branch().await;
    let location = [("location", "/api/v3/repositories/1296269")];
    for _ in 0..6 {
        github.fail_next(Method::GET, answer(301, &location, "Moved Permanently"));
    }
    let error = refusal(&github).await;
    assert!(matches!(error, ForgeError::Moved { .. }), "{error}");
    assert_eq!(github.requests().len(), 5);
}

#[tokio::test]
async fn the_rights_of_an_installed_app_are_not_those_of_a_user() {
    for (token, expected) in [(TOKEN, Some(false)), ("ghs_aTokenOfAnApp0123456789", None)] {
        let own = FakeGitHub::start().await;
        let github = FakeGitHub::start_over(&own.git_dir(), token).await;
        github.read_only(true);
        let forge = forge_with(&github, "acme/app", Some(token));
        let facts = forge.verify().await.unwrap();
        assert_eq!(facts.may_push, expected);
        assert_eq!(facts.require_writable().is_err(), expected.is_some());
    }
}

#[tokio::test]
async fn a_pull_request_that_is_not_listed_yet_is_found_by_its_number() {
    let github = with_branch().await;
    let forge = forge(&github);
    let outcome = forge.ensure_pull_request(&request()).await.unwrap();
    let head = request().head;
    for (url, expected) in [(outcome.url(), Some(1)), (None, None)] {
        github.lag(1);
        let found = forge.find_pull_request(&head, url, None).await.unwrap();
        assert_eq!(found.map(|found| found.number), expected);
    }
}

#[tokio::test]
async fn a_branch_without_commits_is_no_changes() {
    let github = FakeGitHub::start().await;
    github.push(BRANCH, false);
    let outcome = forge(&github).ensure_pull_request(&request()).await.unwrap();
    assert_eq!(outcome, Outcome::NoChanges);
}

#[tokio::test]
async fn an_answer_that_is_lost_after_the_work_leaves_one_pull_request() {
    let github = with_branch().await;
    github.fail_next(Method::POST, Fault::LoseAnswer);
    let outcome = forge(&github).ensure_pull_request(&request()).await.unwrap();
    assert!(matches!(outcome, Outcome::Updated { number: 1, .. }), "{outcome:?}");
    assert_eq!(github.pulls().len(), 1);
}

#[tokio::test]
async fn an_answer_that_never_comes_ends_with_the_timeout_and_is_asked_for_again() {
    let github = with_branch().await;
    github.fail_next(Method::POST, Fault::Hang);
    let mut settings = settings(&github.api_url);
    settings.timeout = Duration::from_millis(300);
    let token = Some(SecretString::from(TOKEN));
    let forge =
        Forge::for_remote(&repository("acme/app"), token, &settings, Redactor::default()).unwrap();
    let outcome = forge.ensure_pull_request(&request()).await.unwrap();
    assert!(matches!(outcome, Outcome::Opened { number: 1, .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_server_that_fails_for_a_moment_is_asked_again() {
    let github = with_branch().await;
    github.fail_next(Method::GET, answer(502, &[], "Bad Gateway"));
    github.fail_next(Method::GET, Fault::Drop);
    github.fail_next(Method::POST, answer(500, &[], "Oops"));
    let outcome = forge(&github).ensure_pull_request(&request()).await.unwrap();
    assert!(matches!(outcome, Outcome::Opened { number: 1, .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_server_that_keeps_failing_ends_as_a_retryable_forge_error() {
    let github = with_branch().await;
    for _ in 0..20 {
        github.fail_next(Method::GET, answer(503, &[], "Unicorn"));
    }
    let error = refusal(&github).await;
    assert_eq!((error.class(), error.is_retryable()), (ErrorClass::Forge, true));
    assert!(error.to_string().contains("Unicorn"), "{error}");
    assert_eq!(github.requests().len(), 4);
}

#[tokio::test]
async fn a_refused_connection_ends_as_a_retryable_forge_error() {
    let github = with_branch().await;
    let forge = forge(&github);
    drop(github);
    let error = forge.ensure_pull_request(&request()).await.unwrap_err();
    assert_eq!((error.class(), error.is_retryable()), (ErrorClass::Forge, true), "{error}");
}

#[tokio::test]
async fn a_wrong_token_ends_as_auth_without_a_second_try() {
    let github = with_branch().await;
    let forge = forge_with(&github, "acme/app", Some("ghp_wrongwrongwrong"));
    let error = forge.ensure_pull_request(&request()).await.unwrap_err();
    assert_eq!((error.class(), error.is_retryable()), (ErrorClass::Auth, false));
    assert!(!error.to_string().contains("ghp_wrong"), "{error}");
    assert_eq!(github.requests().len(), 1);
}

#[tokio::test]
async fn a_token_without_the_permission_ends_as_auth() {
    let github = with_branch().await;
    let words = "Resource not accessible by personal access token";
    github.fail_next(Method::POST, answer(403, &[("x-ratelimit-remaining", "12")], words));
    let error = refusal(&github).await;
    assert_eq!(error.class(), ErrorClass::Auth);
    assert!(error.to_string().contains("Pull requests"), "{error}");
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    let github = with_branch().await;
    let forge = forge_with(&github, "acme/app", None);
    let error = forge.ensure_pull_request(&request()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Auth);
    assert!(error.to_string().contains("GITHUB_TOKEN"), "{error}");
    assert_eq!(forge.require_token().unwrap_err().class(), ErrorClass::Auth);
    assert!(github.requests().is_empty());
}

#[tokio::test]
async fn a_rate_limit_says_how_long_to_wait() {
    let github = with_branch().await;
    github.fail_next(Method::POST, answer(429, &[("retry-after", "17")], "slow down"));
    let error = refusal(&github).await;
    assert_eq!((error.class(), error.is_retryable()), (ErrorClass::RateLimited, true));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(17)));

    let reset = chrono::DateTime::parse_from_rfc3339("2026-01-01T00:01:30Z").unwrap().timestamp();
    let headers = [
        ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", &*reset.to_string()),
    ];
    github.fail_next(Method::GET, answer(403, &headers, "API rate limit exceeded"));
    let error = refusal(&github).await;
    assert_eq!(error.retry_after(), Some(Duration::from_secs(90)));
    assert_eq!(count(&github, "POST acme/app/pulls"), 1);
}

#[tokio::test]
async fn an_unknown_repository_is_a_sentence_and_no_retry() {
    let github = with_branch().await;
    let forge = forge_with(&github, "acme/other", Some(TOKEN));
    let error = forge.ensure_pull_request(&request()).await.unwrap_err();
    assert_eq!((error.class(), error.is_retryable()), (ErrorClass::Forge, false));
    assert!(error.to_string().contains("acme/other"), "{error}");
    assert_eq!(github.requests().len(), 1);
}

#[tokio::test]
async fn a_refusal_keeps_githubs_own_words() {
    let github = with_branch().await;
    let wrong_base = PullRequest { base: "nowhere".to_owned(), ..request() };
    let error = forge(&github).ensure_pull_request(&wrong_base).await.unwrap_err();
    assert_eq!((error.class(), error.is_retryable()), (ErrorClass::Forge, false));
    assert!(error.to_string().contains("no branch \"nowhere\""), "{error}");
    let words = json!({"message": "Validation Failed", "errors": ["has no history in common"]});
    github.fail_next(Method::POST, Fault::Answer(422, Vec::new(), words));
    let error = refusal(&github).await;
    assert_eq!((error.class(), error.is_retryable()), (ErrorClass::Forge, false));
    assert!(error.to_string().contains("has no history in common"), "{error}");
}

#[tokio::test]
async fn a_repository_that_moved_names_its_new_address() {
    let github = with_branch().await;
    let location = [("location", "https://api.github.com/repositories/7/pulls")];
    github.fail_next(Method::GET, answer(301, &location, "Moved Permanently"));
    let error = refusal(&github).await;
    assert!(!error.is_retryable());
    assert!(error.to_string().contains("repositories/7"), "{error}");
}

#[tokio::test]
async fn a_branch_the_server_does_not_know_yet_is_waited_for() {
    let github = with_branch().await;
    let unknown = json!({
        "message": "Validation Failed",
        "errors": [{"resource": "PullRequest", "field": "head", "code": "invalid"}]
    });
    github.fail_next(Method::POST, Fault::Answer(422, Vec::new(), unknown));
    let outcome = forge(&github).ensure_pull_request(&request()).await.unwrap();
    assert!(matches!(outcome, Outcome::Opened { number: 1, .. }), "{outcome:?}");
}

#[tokio::test]
async fn eight_callers_at_once_leave_one_pull_request() {
    let github = with_branch().await;
    let calls = (0..8).map(|_| {
        let forge = forge(&github);
        tokio::spawn(async move { forge.ensure_pull_request(&request()).await })
    });
    for outcome in futures::future::join_all(calls).await {
        let outcome = outcome.unwrap().unwrap();
        assert_eq!(outcome.url(), Some("https://github.com/acme/app/pull/1"));
    }
    assert_eq!(github.pulls().len(), 1);
}

#[tokio::test]
async fn a_server_that_ignores_the_filter_does_not_mix_up_pull_requests() {
    let github = with_branch().await;
    let other = json!([{
        "number": 9, "html_url": "https://github.com/acme/app/pull/9", "state": "open",
        "title": "x", "body": null, "merged_at": null,
        "head": {"ref": "someone/else", "label": "acme:someone/else"}
    }]);
    github.fail_next(Method::GET, Fault::Answer(200, Vec::new(), other));
    let outcome = forge(&github).ensure_pull_request(&request()).await.unwrap();
    assert!(matches!(outcome, Outcome::Opened { number: 1, .. }), "{outcome:?}");
}

#[tokio::test]
async fn issues_and_facts_are_read() {
    let github = FakeGitHub::start().await;
    github.file_issue(7, "It is slow", Some("Make it fast."));
    github.file_issue(8, "No words", None);
    let forge = forge(&github);
    let issue = forge.issue(7).await.unwrap();
    assert_eq!((&*issue.title, &*issue.body), ("It is slow", "Make it fast."));
    assert_eq!(forge.issue(8).await.unwrap().body, "");
    let error = forge.issue(9).await.unwrap_err();
    assert!(error.to_string().contains("issue 9 of acme/app"), "{error}");
    let facts = forge.verify().await.unwrap();
    assert_eq!((&*facts.owner, &*facts.name, &*facts.default_branch), ("acme", "app", "main"));
}

#[tokio::test]
async fn settings_that_would_leak_the_token_are_refused() {
    let try_with = |api: &str, url: &str, token: &str| {
        let token = Some(SecretString::from(token));
        Forge::for_remote(&repository(url), token, &settings(api), Redactor::default()).unwrap_err()
    };
    for (api, url, token) in [
        ("http://api.example", "acme/app", TOKEN),
        ("https://u:hunter2@api.example", "acme/app", TOKEN),
        ("https://api.github.com", "https://git.example/acme/app", TOKEN),
        // Another API does not make it another host.
        ("https://git.example/api/v3", "https://git.example/acme/app", TOKEN),
        ("https://api.github.com", "https://github.com/a/b/c", TOKEN),
        ("https://api.github.com", "acme/app", "two\nlines"),
        ("https://api.github.com", "acme/app", " "),
    ] {
        let error = try_with(api, url, token);
        assert_eq!(error.class(), ErrorClass::Invalid, "{api} {url}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
