//! What a refused call of the model provider was about: by its status, the name that the Claude CLI gives
//! it, and the words the CLI makes of it (versions 1.0 to 2.1).

use crate::domain::ErrorClass;

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
    Model,
    OutputTooLong,
    InputTooLong,
    UsagePolicy,
    Overloaded,
    Certificate,
    Unreachable,
    /// Another refusal of the request.
    Request,
    /// Nothing that tells of the provider.
    Unknown,
}

/// Words in lower case, and the kind they stand for; the first match decides. They stand before status and
/// name, for the CLI reports several kinds under one of those.
const TELLING: &[(&str, Refusal)] = &[
    ("credit balance is too low", Refusal::Credit),
    ("credit balance too low", Refusal::Credit),
    ("out of usage credits", Refusal::Credit),
    ("requires usage credits", Refusal::Credit),
    ("spend limit", Refusal::Credit),
    ("spending cap", Refusal::Credit),
    ("output token maximum", Refusal::OutputTooLong),
    ("context window limit", Refusal::InputTooLong),
    ("context limit reached", Refusal::InputTooLong),
    ("prompt is too long", Refusal::InputTooLong),
    ("request too large", Refusal::InputTooLong),
    ("rate limit reached", Refusal::RateLimit),
    ("limit reached", Refusal::UsageLimit),
    ("hit your ", Refusal::UsageLimit),
    ("out of extra usage", Refusal::UsageLimit),
    ("is out of usage", Refusal::UsageLimit),
    ("reached your specified api usage limits", Refusal::UsageLimit),
    ("usage policy", Refusal::UsagePolicy),
    ("selected model", Refusal::Model),
    ("is not available with the claude", Refusal::Model),
    ("not logged in", Refusal::NoCredential),
];

/// Words that count when neither status nor name told the kind.
const WORDS: &[(&str, Refusal)] = &[
    ("invalid api key", Refusal::Credential),
    ("failed to authenticate", Refusal::Credential),
    ("authentication_error", Refusal::Credential),
    ("permission_error", Refusal::Credential),
    ("oauth token", Refusal::Credential),
    ("login expired", Refusal::Credential),
    ("has been disabled", Refusal::Credential),
    ("/login", Refusal::NoCredential),
    ("rate_limit_error", Refusal::RateLimit),
    ("rate limit", Refusal::RateLimit),
    ("overloaded", Refusal::Overloaded),
    ("internal server error", Refusal::Overloaded),
    ("not_found_error", Refusal::Model),
    ("ssl certificate", Refusal::Certificate),
    ("self-signed certificate", Refusal::Certificate),
    ("unable to connect", Refusal::Unreachable),
    ("connection error", Refusal::Unreachable),
    ("connection closed", Refusal::Unreachable),
    ("request timed out", Refusal::Unreachable),
    ("fetch failed", Refusal::Unreachable),
    ("socket hang up", Refusal::Unreachable),
    ("econnrefused", Refusal::Unreachable),
    ("econnreset", Refusal::Unreachable),
    ("etimedout", Refusal::Unreachable),
    ("enotfound", Refusal::Unreachable),
    ("eai_again", Refusal::Unreachable),
];

/// How the CLI begins to tell of a refused call.
const PREFIX: &str = "api error";

/// The kind of a refusal, and its HTTP status, from what is given or from the words.
pub(super) fn classify(status: Option<u16>, name: &str, said: &str) -> (Refusal, Option<u16>) {
    let lower = said.to_lowercase();
    let status = status.or_else(|| status_in(&lower));
    let found = |table: &[(&str, Refusal)]| {
        table.iter().find(|(words, _)| lower.contains(words)).map(|(_, kind)| *kind)
    };
    let kind = found(TELLING).or_else(|| by_name(status, name)).or_else(|| found(WORDS)).unwrap_or(
        match (status, name) {
            (Some(400..), _) | (_, "invalid_request") => Refusal::Request,
            _ if lower.starts_with(PREFIX) => Refusal::Request,
            // A retry without a status had no answer.
            (None, "unknown") if said.is_empty() => Refusal::Unreachable,
            _ => Refusal::Unknown,
        },
    );
    (kind, status)
}

fn by_name(status: Option<u16>, name: &str) -> Option<Refusal> {
    Some(match (status, name) {
        (
            _,
            "authentication_failed"
            | "oauth_org_not_allowed"
            | "cloud_credential_error"
            | "account_on_hold",
        )
        | (Some(401 | 403), _) => Refusal::Credential,
        (Some(402), _) | (_, "billing_error") => Refusal::Credit,
        (Some(429), _) | (_, "rate_limit") => Refusal::RateLimit,
        (_, "model_not_found") => Refusal::Model,
        (_, "max_output_tokens") => Refusal::OutputTooLong,
        (Some(413), _) => Refusal::InputTooLong,
        (Some(408 | 500..), _) | (_, "overloaded" | "server_error") => Refusal::Overloaded,
        _ => return None,
    })
}

/// The status in `API Error: 529 …` and `API Error (503 …`.
fn status_in(lower: &str) -> Option<u16> {
    let (_, rest) = lower.split_once(PREFIX)?;
    let digits = rest.trim_start_matches([':', ' ', '(']);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    (end == 3).then(|| digits[..end].parse().ok())?.filter(|status| (400..600).contains(status))
}

impl Refusal {
    /// The class that is stored, which decides about a retry.
    pub(super) const fn class(self) -> ErrorClass {
        match self {
            Self::Credit => ErrorClass::Budget,
            Self::UsageLimit | Self::RateLimit => ErrorClass::RateLimited,
            Self::NoCredential | Self::Credential => ErrorClass::Auth,
            Self::Overloaded | Self::Unreachable => ErrorClass::Overloaded,
            Self::Model | Self::Certificate => ErrorClass::Invalid,
            Self::OutputTooLong
            | Self::InputTooLong
            | Self::UsagePolicy
            | Self::Request
            | Self::Unknown => ErrorClass::ToolError,
        }
    }

    /// What happened, and what to do; the provider's own words follow it.
    pub(super) const fn advice(self) -> &'static str {
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
            Self::NoCredential => {
                "the agent has no credential: set ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN"
            }
            Self::Credential => {
                "the model provider refused the credential: check ANTHROPIC_API_KEY or \
                 CLAUDE_CODE_OAUTH_TOKEN"
            }
            Self::Model => {
                "the model provider does not offer this model to the account: correct CLAUDE_CLI_MODEL"
            }
            Self::OutputTooLong => {
                "one answer of the model was longer than the agent allows: split the request into smaller \
                 ones"
            }
            Self::InputTooLong => {
                "the request and what the agent read for it are longer than the model can take: split \
                 the request"
            }
            Self::UsagePolicy => {
                "the model provider refuses this request by its usage policy: word it differently"
            }
            Self::Overloaded => "the model provider is overloaded or failing",
            Self::Certificate => {
                "the certificate of the model provider's address is not trusted: check \
                 ANTHROPIC_BASE_URL and the proxy before it"
            }
            Self::Unreachable => {
                "the model provider could not be reached: check the network and ANTHROPIC_BASE_URL"
            }
            Self::Request => "the model provider refused the request",
            Self::Unknown => "the agent ended with an error",
        }
    }
}
