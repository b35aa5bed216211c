//! What GitHub's answers mean: status, headers and error bodies become outcomes or sentences.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use chrono::DateTime;
use serde::Deserialize;
use serde_json::Value;

/// Longest text taken over from an answer, in characters.
const MAX_MESSAGE: usize = 500;
/// How much of a page is searched for its title, in bytes.
const MAX_PAGE: usize = 16 * 1024;
/// Longest title taken over from a page, in characters.
const MAX_TITLE: usize = 100;
/// Longest wait that is believed; GitHub's own windows are one hour.
const MAX_WAIT: Duration = Duration::from_hours(2);
/// The wait when GitHub limits without saying for how long, as its documentation asks.
const DEFAULT_WAIT: Duration = Duration::from_mins(1);

/// An answer that has been read to its end.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Why an answer is not a success.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// Bad or insufficient credential.
    Auth(String),
    /// Slow down, for this long.
    RateLimited(Duration, String),
    /// Not there, or not for us.
    NotFound,
    /// 410: an issue that was deleted, or a repository without issues; in the server's words.
    Gone(String),
    /// 403: the repository takes no writes any more.
    Archived,
    /// Has another address now.
    Moved(String),
    /// 422: a pull request for this head exists.
    AlreadyExists,
    /// 422: head and base are the same.
    NoCommits,
    /// 422: the head is unknown. Seen for moments after a push, until all servers know it.
    UnknownHead(String),
    /// 422: the base is unknown.
    UnknownBase(String),
    /// A page for people, from whatever stands before the API: status and title.
    Page(String),
    /// The server failed.
    Server(String),
    /// Anything else: a refusal in the server's words.
    Refused(String),
}

#[derive(Debug, Default, Deserialize)]
struct Problem {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Value,
    /// Where a redirect leads to.
    url: Option<String>,
}

impl Reply {
    /// Nothing when the answer is a success.
    pub(super) fn rejection(&self) -> Option<Rejection> {
        let page = self.page();
        if self.status.is_success() {
            return page.map(Rejection::Page);
        }
        let problem: Problem = serde_json::from_slice(&self.body).unwrap_or_default();
        let message = self.message(&problem);
        let limited = self.status == StatusCode::TOO_MANY_REQUESTS
            || (self.status == StatusCode::FORBIDDEN && self.is_rate_limit(&message));
        if limited {
            return Some(Rejection::RateLimited(self.wait(), message));
        }
        if self.status.is_server_error() || self.status == StatusCode::REQUEST_TIMEOUT {
            return Some(Rejection::Server(message));
        }
        if let Some(page) = page {
            return Some(Rejection::Page(page));
        }
        Some(match self.status {
            StatusCode::FORBIDDEN if message.to_ascii_lowercase().contains("archived") => {
                Rejection::Archived
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Rejection::Auth(message),
            StatusCode::NOT_FOUND => Rejection::NotFound,
            StatusCode::GONE => Rejection::Gone(message),
            StatusCode::UNPROCESSABLE_ENTITY => self.unprocessable(&problem, message),
            status if status.is_redirection() => {
                let location = self.header(&header::LOCATION).or(problem.url.as_deref());
                Rejection::Moved(location.unwrap_or(&message).to_owned())
            }
            _ => Rejection::Refused(message),
        })
    }

    /// Status and title, when the answer is a page for people. GitHub's API sends JSON but for
    /// failures of its own.
    fn page(&self) -> Option<String> {
        let says = |kind| self.header(&header::CONTENT_TYPE).is_some_and(|t| t.contains(kind));
        let start = self.body.trim_ascii_start();
        if says("json") || !(says("html") || start.first() == Some(&b'<')) {
            return None;
        }
        let text = String::from_utf8_lossy(&start[..start.len().min(MAX_PAGE)]);
        let title = text.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
        let title = title.map(|(title, _)| printable(title.trim(), MAX_TITLE));
        Some(match title.filter(|title| !title.is_empty()) {
            Some(title) => format!("{}, {title:?}", self.status),
            None => self.status.to_string(),
        })
    }

    fn unprocessable(&self, problem: &Problem, message: String) -> Rejection {
        let details = details(&problem.errors);
        let says = |words: &str| details.iter().any(|detail| detail.contains(words));
        let is = |words: &str| details.iter().any(|detail| detail == words);
        // The limit for what makes content: no header says so, and only waiting helps.
        if says("submitted too quickly") || message.contains("submitted too quickly") {
            Rejection::RateLimited(self.wait(), message)
        } else if says("pull request already exists") {
            Rejection::AlreadyExists
        } else if says("No commits between") {
            Rejection::NoCommits
        } else if is("head is invalid") {
            Rejection::UnknownHead(message)
        } else if is("base is invalid") {
            Rejection::UnknownBase(message)
        } else {
            Rejection::Refused(message)
        }
    }

    fn header(&self, name: &header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn number(&self, name: &'static str) -> Option<i64> {
        self.header(&header::HeaderName::from_static(name))?.trim().parse().ok()
    }

    fn is_rate_limit(&self, message: &str) -> bool {
        let message = message.to_ascii_lowercase();
        self.number("x-ratelimit-remaining") == Some(0)
            || self.headers.contains_key(header::RETRY_AFTER)
            || message.contains("rate limit")
            || message.contains("abuse detection")
            || message.contains("temporarily blocked from content creation")
    }

    /// How long to wait. Times are compared with the answer's own `Date`, so that a wrong clock
    /// on this machine does not matter.
    fn wait(&self) -> Duration {
        let date = self.header(&header::DATE).and_then(http_date);
        let until = |time: i64| date.map(|date| time.saturating_sub(date).max(1));
        let retry_after = self
            .header(&header::RETRY_AFTER)
            .and_then(|text| text.trim().parse().ok().or_else(|| http_date(text).and_then(until)));
        retry_after
            .or_else(|| self.number("x-ratelimit-reset").and_then(until))
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(DEFAULT_WAIT, Duration::from_secs)
            .min(MAX_WAIT)
    }

    /// GitHub's message and the details of its `errors`, or the status when it sent none.
    fn message(&self, problem: &Problem) -> String {
        let mut parts: Vec<String> = Vec::new();
        if !problem.message.is_empty() {
            parts.push(problem.message.clone());
        }
        parts.extend(details(&problem.errors));
        if parts.is_empty() {
            parts.push(self.status.to_string());
        }
        printable(&parts.join(": "), MAX_MESSAGE)
    }
}

fn http_date(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc2822(text.trim()).ok().map(|time| time.timestamp())
}

/// GitHub sends `errors` as objects with a message, as objects with field and code, or as text.
fn details(errors: &Value) -> Vec<String> {
    let one = |error: &Value| match error {
        Value::String(text) => Some(text.clone()),
        Value::Object(fields) => match fields.get("message").and_then(Value::as_str) {
            Some(message) => Some(message.to_owned()),
            None => Some(format!(
                "{} is {}",
                fields.get("field").and_then(Value::as_str)?,
                fields.get("code").and_then(Value::as_str)?
            )),
        },
        _ => None,
    };
    match errors {
        Value::Array(errors) => errors.iter().take(10).filter_map(one).collect(),
        other => one(other).into_iter().collect(),
    }
}

/// The first characters of a text of the server, without what could upset a terminal.
fn printable(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
    use proptest::prelude::*;

    use super::{Rejection, Reply};

    fn reply(status: u16, headers: &[(&'static str, &str)], body: &str) -> Reply {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            })
            .collect();
        let status = StatusCode::from_u16(status).unwrap();
        Reply { status, headers, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn a_reset_time_is_measured_against_the_servers_own_date() {
        let headers = [
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "784111800"),
        ];
        let rejection = reply(403, &headers, r#"{"message": "no"}"#).rejection();
        let expected = Rejection::RateLimited(Duration::from_secs(23), "no".to_owned());
        assert_eq!(rejection, Some(expected));
    }

    #[test]
    fn a_plain_403_is_a_missing_permission_and_not_a_rate_limit() {
        let body = r#"{"message": "Resource not accessible by personal access token"}"#;
        let headers = [("x-ratelimit-remaining", "4999")];
        assert!(matches!(reply(403, &headers, body).rejection(), Some(Rejection::Auth(_))));
    }

    #[test]
    fn unknown_errors_keep_githubs_own_words() {
        for (body, words) in [
            (r#"{"message": "Validation Failed", "errors": ["Too long"]}"#, "Too long"),
            (r#"{"message": "Nope", "errors": [{"field": "side", "code": "invalid"}]}"#, "side is"),
            (r#"{"message": "Nope", "errors": 7, "new": {}}"#, "Nope"),
            (r#"{"errors": "?"}"#, "?"),
            ("", "422"),
        ] {
            let rejection = reply(422, &[], body).rejection();
            let Some(Rejection::Refused(message)) = rejection else {
                panic!("{body} gave {rejection:?}")
            };
            assert!(message.contains(words), "{message:?} does not say {words:?}");
        }
    }

    #[test]
    fn what_makes_content_too_fast_waits_a_minute_or_as_long_as_it_is_told() {
        let body = r#"{"message": "Validation Failed",
            "errors": [{"resource": "PullRequest", "code": "custom", "message": "was submitted too quickly"}]}"#;
        for (headers, seconds) in [(&[][..], 60), (&[("retry-after", "30")][..], 30)] {
            match reply(422, headers, body).rejection() {
                Some(Rejection::RateLimited(wait, _)) => {
                    assert_eq!(wait, Duration::from_secs(seconds));
                }
                other => panic!("{other:?}"),
            }
        }
        // The secondary limit without any header.
        let body = r#"{"message": "You have exceeded a secondary rate limit."}"#;
        let rejection = reply(403, &[("x-ratelimit-remaining", "4290")], body).rejection();
        assert!(matches!(rejection, Some(Rejection::RateLimited(..))), "{rejection:?}");
    }

    #[test]
    fn a_page_is_no_answer_of_the_api_whatever_its_status() {
        let page = " <!DOCTYPE html><title>\n Access denied </title>";
        for status in [200, 302, 401, 403, 404, 422] {
            let rejection = reply(status, &[("content-type", "text/html")], page).rejection();
            let Some(Rejection::Page(page)) = rejection else { panic!("{status}: {rejection:?}") };
            assert!(page.starts_with(&status.to_string()) && page.ends_with("\"Access denied\""));
        }
        assert!(matches!(reply(502, &[], page).rejection(), Some(Rejection::Server(_))));
        assert!(matches!(reply(429, &[], page).rejection(), Some(Rejection::RateLimited(..))));
        assert_eq!(reply(200, &[("content-type", "application/json")], "<>").rejection(), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic_or_wait_for_days(
            status in 100_u16..600,
            retry in "[ -~]{0,30}",
            reset in "-?[0-9]{0,20}",
            body in ".*",
        ) {
            let headers = [("retry-after", retry.as_str()), ("x-ratelimit-reset", &reset)];
            if let Some(Rejection::RateLimited(wait, _)) = reply(status, &headers, &body).rejection() {
                prop_assert!(wait <= Duration::from_hours(2));
            }
        }
    }
}
