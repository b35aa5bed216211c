//! Exit codes, and the one place that turns an error into text for a person.

use std::process::ExitCode;

use crate::{
    config::{ConfigError, NotRunnable},
    domain::{InvalidOrderId, InvalidRepositoryUrl, InvalidSteps, Redactor, for_terminal},
    store::{self, ConnectError, StoreError},
};

/// How a command ended, as the number scripts see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed for a reason without a number of its own.
    Failure = 1,
    /// The command line was not understood, or a value in it is invalid.
    Usage = 2,
    /// A setting, a folder or a program stops the start.
    Configuration = 3,
    /// The database cannot be reached, is too old or on another schema version.
    Database = 4,
    /// `enqueue --wait`, `cancel --wait`: the work order ended other than it should. `agent try`: the step
    /// would fail.
    OrderFailed = 5,
    /// There is no such thing, or a rule forbids it.
    Refused = 6,
    /// `doctor` found problems.
    Unhealthy = 7,
    /// Ended by a signal.
    Interrupted = 130,
}

/// Ways for a command to fail that are decided by the command itself.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// An argument whose value is invalid.
    #[error("{0}")]
    Usage(String),
    /// Nothing has that id.
    #[error("there is no work order {0:?}")]
    NoSuchOrder(String),
    /// No folder is there that could be a repository.
    #[error("there is no repository at {0:?}")]
    NoRepository(String),
    /// The step that was tried would fail.
    #[error("the step would fail ({class}): {message}")]
    AgentFailed {
        /// Under which class.
        class: &'static str,
        /// With which sentence.
        message: String,
    },
    /// Nothing is known of that repository.
    #[error("nothing is known of the repository {0:?}")]
    NoSuchRepository(String),
    /// The order that was waited for did not complete.
    #[error("work order {id} ended {status}: {message}")]
    OrderFailed {
        /// The order.
        id: String,
        /// `failed` or `cancelled`.
        status: String,
        /// Its error message.
        message: String,
    },
    /// The order that was to be cancelled had ended otherwise.
    #[error("work order {id} ended {status} before it could be cancelled")]
    NotCancelled {
        /// The order.
        id: String,
        /// `completed` or `failed`.
        status: String,
    },
    /// The order is cancelled, and nobody has seen its processes end.
    #[error(
        "work order {0} is cancelled, but nobody saw its processes end: its worker was lost; \
         they are frozen or killed when the lease ends, `archon-awo show {0}` names the host"
    )]
    NotProven(String),
    /// `doctor` found problems, and has printed them.
    #[error("{0} of the checks failed")]
    ProblemsFound(usize),
    /// A signal ended the command.
    #[error("interrupted")]
    Interrupted,
}

/// Prints an error and picks the exit code.
pub fn report(result: anyhow::Result<()>, redactor: &Redactor) -> ExitCode {
    let Err(error) = result else { return Exit::Ok.into() };
    let exit = code(&error);
    // The reader of our output went away (`archon-awo logs … | head`): nobody to tell.
    if exit != Exit::Ok {
        // What servers and programs say stands in it.
        let clean = |text: &str| for_terminal(&redactor.text(text), false);
        eprintln!("error: {}", clean(&message(&error)));
        if let Some(help) = help(&error) {
            eprintln!("help: {}", clean(help));
        }
    }
    exit.into()
}

/// The exit code for an error.
pub fn code(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<CommandError>() {
            return match error {
                CommandError::Usage(_) => Exit::Usage,
                CommandError::NoSuchOrder(_)
                | CommandError::NoSuchRepository(_)
                | CommandError::NoRepository(_) => Exit::Refused,
                CommandError::OrderFailed { .. }
                | CommandError::NotCancelled { .. }
                | CommandError::AgentFailed { .. } => Exit::OrderFailed,
                CommandError::NotProven(_) => Exit::Failure,
                CommandError::ProblemsFound(_) => Exit::Unhealthy,
                CommandError::Interrupted => Exit::Interrupted,
            };
        }
        if cause.is::<ConfigError>() || cause.is::<NotRunnable>() {
            return Exit::Configuration;
        }
        if cause.is::<InvalidRepositoryUrl>()
            || cause.is::<InvalidSteps>()
            || cause.is::<InvalidOrderId>()
        {
            return Exit::Usage;
        }
        if let Some(error) = cause.downcast_ref::<ConnectError>() {
            return match error {
                ConnectError::Url(_) => Exit::Configuration,
                _ => Exit::Database,
            };
        }
        if let Some(error) = cause.downcast_ref::<StoreError>() {
            return match (error.refusal(), error.is_transient()) {
                (Some(_), _) => Exit::Refused,
                (None, true) => Exit::Database,
                (None, false) => Exit::Failure,
            };
        }
        if let Some(error) = cause.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::BrokenPipe
        {
            return Exit::Ok;
        }
    }
    Exit::Failure
}

/// The error and its causes in one sentence; a cause its error already quotes is left out.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let refusal = cause.downcast_ref::<StoreError>().and_then(StoreError::refusal);
        let driver = cause.downcast_ref::<sqlx::Error>();
        let part = match (refusal, driver) {
            (Some(refusal), _) => refusal.to_owned(),
            (None, Some(error)) => store::words(error),
            (None, None) => cause.to_string(),
        };
        if !text.contains(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        // What is below has been said, in the driver's words.
        if refusal.is_some() || driver.is_some() {
            break;
        }
    }
    text
}

/// What to do, where the message does not say it already.
fn help(error: &anyhow::Error) -> Option<&'static str> {
    for cause in error.chain() {
        match cause.downcast_ref::<CommandError>() {
            Some(CommandError::NoSuchOrder(_)) => {
                return Some("`archon-awo list` shows the newest work orders");
            }
            Some(CommandError::NoSuchRepository(_)) => {
                return Some(
                    "no order named it and nothing was set for it: the defaults hold, and an option sets it",
                );
            }
            Some(CommandError::NoRepository(_)) => {
                return Some("name a folder with a git repository, or its address");
            }
            Some(CommandError::AgentFailed { .. }) => {
                return Some("docs/agents.md says what each step expects of an agent");
            }
            Some(CommandError::OrderFailed { .. }) => {
                return Some(
                    "`archon-awo logs ID` shows its log, `archon-awo requeue ID` runs it again",
                );
            }
            _ => {}
        }
        if cause.is::<NotRunnable>() {
            return Some("`archon-awo doctor` checks all of it");
        }
        match cause.downcast_ref::<ConfigError>() {
            Some(ConfigError::Unset { .. }) => {
                return Some("set it in the environment or in agent-settings.yaml");
            }
            Some(_) => return Some("`archon-awo config --help` says where settings come from"),
            None => {}
        }
        if cause.downcast_ref::<StoreError>().is_some_and(StoreError::is_forbidden) {
            return Some("`archon-awo doctor` names the GRANT that is missing");
        }
        if let Some(ConnectError::Unreachable { .. }) = cause.downcast_ref::<ConnectError>() {
            return Some("`archon-awo doctor` checks the connection and everything else");
        }
    }
    None
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::{CommandError, Exit, code, message};
    use crate::store::{self, ConnectError};

    #[test]
    fn each_kind_of_error_has_its_own_number() {
        let cases: [(anyhow::Error, Exit); 6] = [
            (CommandError::Usage("x".into()).into(), Exit::Usage),
            (CommandError::NoSuchOrder("x".into()).into(), Exit::Refused),
            (ConnectError::TooOld("13.9".into()).into(), Exit::Database),
            (ConnectError::Behind { found: 0, expected: 4 }.into(), Exit::Database),
            (anyhow::anyhow!("x"), Exit::Failure),
            (
                anyhow::Error::new(CommandError::Interrupted).context("while waiting"),
                Exit::Interrupted,
            ),
        ];
        for (error, exit) in cases {
            assert_eq!(code(&error), exit, "{error:#}");
        }
    }

    #[test]
    fn database_errors_say_version_and_what_to_do() {
        let text = message(&ConnectError::TooOld("13.9".into()).into());
        assert_eq!(text, "the database server is version 13.9: expected PostgreSQL 14 or newer");
        let text = message(&ConnectError::Behind { found: 1, expected: 4 }.into());
        assert!(text.contains("version 1") && text.contains("archon-awo migrate"), "{text}");
        let too_new = ConnectError::TooNew { found: 9, expected: 4, oldest: 5 };
        let text = message(&too_new.into());
        assert!(text.contains("version 9") && text.contains("update archon-awo"), "{text}");
    }

    #[test]
    fn a_cause_that_is_quoted_already_is_not_repeated() {
        let words = store::words(&sqlx::Error::PoolTimedOut);
        let error = anyhow::Error::new(sqlx::Error::PoolTimedOut).context(format!("lost: {words}"));
        assert_eq!(message(&error).matches(&words).count(), 1, "{error:#}");
    }
}
