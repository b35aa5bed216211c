//! Why a step did not succeed, and what that means for its order.

use std::time::Duration;

use super::{prompts::PromptError, review::ReviewError};
use crate::{
    agent, disk,
    domain::{ErrorClass, InvalidRepositoryUrl, InvalidSteps},
    forge::ForgeError,
    git::GitError,
    lease::StopReason,
    store::RunError,
};

/// Why a step ended without a result.
#[derive(Debug)]
pub enum StepError {
    /// It failed.
    Failed(Failure),
    /// It was stopped from outside.
    Stopped(StopReason),
}

/// A failure with its class; the sentence names what a person can do.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each says something else")]
pub struct Failure {
    /// The class stored with the step and the order.
    pub class: ErrorClass,
    /// The sentence.
    pub message: String,
    /// Whether another attempt may help.
    pub retryable: bool,
    /// Whether something outside of the order failed: it is waited out, and spends no attempt.
    pub outside: bool,
    /// The earliest time for one.
    pub retry_after: Option<Duration>,
    /// Whether the order was kept from running by its own former owner: it waits, and spends nothing.
    pub waits: bool,
    /// Whether a file or folder could not be opened: it may be one of ours that somebody closed.
    pub denied: bool,
}

impl Failure {
    /// A failure that is retried when its class is transient.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        let retryable = class.is_transient();
        let outside = matches!(class, ErrorClass::RateLimited | ErrorClass::Overloaded);
        let message = message.into();
        Self { class, message, retryable, outside, retry_after: None, waits: false, denied: false }
    }

    /// A failure that no retry can mend.
    pub fn lasting(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { retryable: false, ..Self::new(class, message) }
    }
}

/// What the system says, and git after it, of what may not be opened.
const DENIED: &str = "Permission denied";

/// The text of an error with its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

impl From<Failure> for StepError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<agent::Failure> for StepError {
    fn from(failure: agent::Failure) -> Self {
        let agent::Failure { class, message, retry_after, sandbox_free } = failure;
        let (waits, denied) = (!sandbox_free, message.contains(DENIED));
        Self::Failed(Failure { retry_after, waits, denied, ..Failure::new(class, message) })
    }
}

impl From<GitError> for StepError {
    fn from(error: GitError) -> Self {
        Self::Failed(Failure {
            class: error.class(),
            message: with_causes(&error),
            retryable: error.retryable(),
            outside: error.is_outage(),
            retry_after: None,
            waits: false,
            denied: with_causes(&error).contains(DENIED),
        })
    }
}

impl From<ForgeError> for StepError {
    fn from(error: ForgeError) -> Self {
        Self::Failed(Failure {
            class: error.class(),
            message: with_causes(&error),
            retryable: error.is_retryable(),
            outside: error.is_retryable() && error.class() != ErrorClass::Disk,
            retry_after: error.retry_after(),
            waits: false,
            denied: false,
        })
    }
}

impl From<RunError> for StepError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Stale(_) => Self::Stopped(StopReason::LeaseLost),
            RunError::Store(error) => {
                let message = format!(
                    "the database refuses what is to be stored of the run: {}; see the log of the \
                     server for more, mend it there, then requeue the order",
                    with_causes(&error)
                );
                Self::Failed(Failure::lasting(ErrorClass::Invalid, message))
            }
        }
    }
}

impl From<PromptError> for StepError {
    fn from(error: PromptError) -> Self {
        Self::Failed(Failure::new(error.class(), with_causes(&error)))
    }
}

impl From<ReviewError> for StepError {
    fn from(error: ReviewError) -> Self {
        Self::Failed(Failure::new(error.class(), with_causes(&error)))
    }
}

impl From<InvalidRepositoryUrl> for StepError {
    fn from(error: InvalidRepositoryUrl) -> Self {
        Self::Failed(Failure::lasting(ErrorClass::Invalid, error.to_string()))
    }
}

impl From<InvalidSteps> for StepError {
    fn from(error: InvalidSteps) -> Self {
        Self::Failed(Failure::lasting(ErrorClass::Invalid, error.to_string()))
    }
}

/// A file of ours on the work order volume that cannot be written.
pub fn volume(path: &std::path::Path, error: &std::io::Error) -> StepError {
    let class = if disk::is_full(error) { ErrorClass::Disk } else { ErrorClass::Invalid };
    let message = format!("cannot write {}: {error}", path.display());
    let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
    StepError::Failed(Failure { denied, ..Failure::new(class, message) })
}
