//! What a refused call of the model provider was about: by its status, by the names that provider and Claude
//! CLI give it, and by the words the CLI makes of it (versions 1.0 to 2.1).

mod words;

use std::borrow::Cow;

use super::setting_names::SettingNames;
use crate::domain::ErrorClass;

/// What is known of a call that had no good end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Facts<'a> {
    /// The HTTP status of the answer.
    pub status: Option<u16>,
    /// The name that the CLI gives the kind, such as `rate_limit`.
    pub name: &'a str,
    /// The type in the provider's own error, such as `overloaded_error`.
    pub error_type: &'a str,
    /// The words the CLI makes of it.
    pub said: &'a str,
    /// The agent may connect to the port of its proxy alone.
    pub proxy_only: bool,
}

/// A kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The account has nothing left to spend.
    Credit,
    /// The usage limit of a subscription or a workspace, which resets by itself.
    UsageLimit,
    /// Too many requests at once.
    RateLimit,
    /// The CLI has no credential at all.
    NoCredential,
    Credential,
    /// A login or token that was good once.
    ExpiredLogin,
    /// The credential is good, and does not allow this.
    Forbidden,
    Model,
    OutputTooLong,
    InputTooLong,
    UsagePolicy,
    Overloaded,
    Certificate,
    Unreachable,
    /// The connection was there and broke.
    CutOff,
    /// Our own bounds keep the agent from the provider.
    ShutIn,
    /// Another refusal of the request.
    Request,
    /// Nothing that tells of the provider.
    Unknown,
}

/// How the CLI begins to tell of a refused call.
const PREFIX: &str = "api error";

/// The kind of a refusal, and its HTTP status, from what is given or from the words.
///
/// Sentences of the CLI come first, for it reports several kinds under one status and one name; then what
/// the provider itself calls the error, then status and name, then words that may stand anywhere.
pub(super) fn classify(facts: &Facts<'_>) -> (Refusal, Option<u16>) {
    let lower = facts.said.to_lowercase().replace('\u{2019}', "'");
    let status = facts.status.or_else(|| status_in(&lower));
    let found = words::sentence(&lower)
        .or_else(|| by_type(facts.error_type))
        .or_else(|| types_in(&lower).find_map(by_type))
        .or_else(|| by_name(status, facts.name))
        .or_else(|| words::word(&lower));
    let kind = found.unwrap_or_else(|| match (status, facts.name) {
        (_, "server_error") => Refusal::Overloaded,
        (Some(400..), _) | (_, "invalid_request") => Refusal::Request,
        _ if lower.contains(PREFIX) => Refusal::Request,
        // A retry without a status had no answer.
        (None, "unknown") if lower.is_empty() => Refusal::Unreachable,
        _ => Refusal::Unknown,
    });
    let shut_in = facts.proxy_only && kind == Refusal::Unreachable;
    (if shut_in && words::is_kept_out(&lower) { Refusal::ShutIn } else { kind }, status)
}

/// By the types of the provider's errors, as its documentation lists them.
fn by_type(error_type: &str) -> Option<Refusal> {
    Some(match error_type {
        "authentication_error" => Refusal::Credential,
        "permission_error" => Refusal::Forbidden,
        "billing_error" => Refusal::Credit,
        "not_found_error" => Refusal::Model,
        "request_too_large" => Refusal::InputTooLong,
        "rate_limit_error" => Refusal::RateLimit,
        "overloaded_error" | "api_error" | "timeout_error" => Refusal::Overloaded,
        _ => return None,
    })
}

/// The types in an answer in JSON that the CLI repeats as it came.
fn types_in(lower: &str) -> impl Iterator<Item = &str> {
    let values = lower.split("\"type\":").skip(1);
    values.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
}

fn by_name(status: Option<u16>, name: &str) -> Option<Refusal> {
    Some(match (status, name) {
        (Some(403), _) | (_, "oauth_org_not_allowed" | "account_on_hold") => Refusal::Forbidden,
        (Some(401), _) | (_, "authentication_failed" | "cloud_credential_error") => {
            Refusal::Credential
        }
        (Some(402), _) | (_, "billing_error") => Refusal::Credit,
        (Some(429), _) | (_, "rate_limit") => Refusal::RateLimit,
        (Some(404), _) | (_, "model_not_found") => Refusal::Model,
        (_, "max_output_tokens") => Refusal::OutputTooLong,
        (Some(413), _) => Refusal::InputTooLong,
        // Without a status a server_error may be a connection that failed: the words tell.
        (Some(408 | 500..), _) | (_, "overloaded") | (Some(_), "server_error") => {
            Refusal::Overloaded
        }
        _ => return None,
    })
}

/// The status in `API Error: 529 …`, `API Error (503 …` and `Request rejected (429)`.
fn status_in(lower: &str) -> Option<u16> {
    let behind = |words: &str| {
        let digits = lower.split_once(words)?.1.trim_start_matches([':', ' ', '(']);
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let status = (end == 3).then(|| digits[..end].parse().ok())?;
        status.filter(|status| (400..600).contains(status))
    };
    behind(PREFIX).or_else(|| behind("request rejected"))
}

impl Refusal {
    /// The class that is stored, which decides about a retry.
    pub(super) const fn class(self) -> ErrorClass {
        match self {
            Self::Credit => ErrorClass::Budget,
            Self::UsageLimit | Self::RateLimit => ErrorClass::RateLimited,
            Self::NoCredential | Self::Credential | Self::ExpiredLogin | Self::Forbidden => {
                ErrorClass::Auth
            }
            Self::Overloaded | Self::Unreachable | Self::CutOff => ErrorClass::Overloaded,
            Self::Model | Self::Certificate | Self::ShutIn => ErrorClass::Invalid,
            Self::OutputTooLong
            | Self::InputTooLong
            | Self::UsagePolicy
            | Self::Request
            | Self::Unknown => ErrorClass::ToolError,
        }
    }

    /// What happened, and what to do; the provider's own words follow it.
    pub(super) fn advice(self, names: &SettingNames) -> Cow<'static, str> {
        let SettingNames { credential, model, address, .. } = names;
        let text = match self {
            Self::NoCredential => format!("the agent has no credential: set {credential}"),
            Self::Credential => {
                format!("the model provider refused the credential: check {credential}")
            }
            Self::ExpiredLogin => {
                let renew =
                    names.new_login.map_or_else(|| format!("renew {credential}"), str::to_owned);
                format!("the login at the model provider has expired or was revoked: {renew}")
            }
            Self::Forbidden => format!(
                "the model provider does not allow this to the account: ask who manages its organization, \
                 or set another {credential}"
            ),
            Self::Model => format!(
                "the model provider does not offer this model to the account: correct {model}, or {address} \
                 where that is set"
            ),
            Self::UsagePolicy => format!(
                "the model refused this request by the usage policy of its provider: word it differently, \
                 or set another {model}"
            ),
            Self::Certificate => format!(
                "the certificate of the model provider's address is not trusted: check {address} and the \
                 proxy before it"
            ),
            Self::Unreachable => {
                format!("the model provider could not be reached: check the network and {address}")
            }
            Self::ShutIn => format!(
                "the agent was kept from the model provider: with AWO_AGENT_NETWORK=proxy it reaches the \
                 port of AWO_AGENT_PROXY alone; correct AWO_AGENT_PROXY or {address}, or set \
                 AWO_AGENT_NETWORK=open"
            ),
            _ => return self.advice_without_names().into(),
        };
        text.into()
    }

    const fn advice_without_names(self) -> &'static str {
        match self {
            Self::Credit => {
                "the account at the model provider has no credit left, or reached its spend limit: add \
                 credit or raise the limit"
            }
            Self::UsageLimit => {
                "the usage limit of the account at the model provider is reached: it resets by itself, \
                 and another account or a higher plan has more"
            }
            Self::RateLimit => {
                "the model provider's rate limit is reached: wait, or lower AWO_MAX_CONCURRENT"
            }
            Self::OutputTooLong => {
                "one answer of the model was longer than the agent allows: split the request into smaller \
                 ones"
            }
            Self::InputTooLong => {
                "the request and what the agent read for it are longer than the model can take: split \
                 the request"
            }
            Self::Overloaded => "the model provider is overloaded or failing",
            Self::CutOff => {
                "the connection to the model provider broke off: check the network, and the proxy where \
                 there is one"
            }
            Self::Request => "the model provider refused the request",
            _ => "the agent ended with an error",
        }
    }
}
