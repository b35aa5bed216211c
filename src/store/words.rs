//! A database error in words for people: what the server said, with its details and its code.
//!
//! The driver's own text ends with a line number of Postgres' source code, which people take for one of
//! theirs. So no error of the driver is printed as it is: each goes through here.

use sqlx::{error::DatabaseError, migrate::MigrateError, postgres::PgDatabaseError};

/// SQLSTATE of a connection more than the server, the database or the role may have.
const TOO_MANY_CONNECTIONS: &str = "53300";
/// SQLSTATE of a right that is missing.
const NO_RIGHT: &str = "42501";
/// SQLSTATE of a write where only reading is possible.
const READ_ONLY: &str = "25006";

/// Details longer than this, in characters, are cut: they may quote a whole row.
const LONGEST_DETAIL: usize = 300;

/// What went wrong, in one line, without a password.
pub fn words(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => server_words(error.as_ref()),
        sqlx::Error::PoolTimedOut => "the database did not answer in time".to_owned(),
        sqlx::Error::Migrate(error) => migration_words(error),
        other => other.to_string(),
    }
}

/// The same for a migration, which is named.
pub fn migration_words(error: &MigrateError) -> String {
    match error {
        MigrateError::Execute(error) => words(error),
        MigrateError::ExecuteMigration(error, version) => {
            format!("migration {version}: {}", words(error))
        }
        other => other.to_string(),
    }
}

/// Whether the server has no room for one more connection.
pub(super) fn is_shortage(error: &sqlx::Error) -> bool {
    has_code(error, TOO_MANY_CONNECTIONS)
}

/// Whether a right is missing.
pub(super) fn is_forbidden(error: &sqlx::Error) -> bool {
    has_code(error, NO_RIGHT)
}

fn has_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(DatabaseError::code).as_deref() == Some(code)
}

fn server_words(error: &dyn DatabaseError) -> String {
    let mut text = error.message().to_owned();
    let code = error.code().unwrap_or_default().into_owned();
    if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
        // A refused row is quoted in the detail: it may be long, and it is not ours to publish.
        let detail = error.detail().filter(|detail| !detail.starts_with("Failing row contains"));
        for more in detail.into_iter().chain(error.hint()) {
            let line = more.split_whitespace().collect::<Vec<_>>().join(" ");
            text.push_str("; ");
            text.extend(line.chars().take(LONGEST_DETAIL));
        }
    }
    if !code.is_empty() {
        text = format!("{text} (SQLSTATE {code})");
    }
    if let Some(advice) = advice(&code, error.message()) {
        text = format!("{text}; {advice}");
    }
    text
}

/// What to do, where the server does not say it.
fn advice(code: &str, message: &str) -> Option<&'static str> {
    match code {
        TOO_MANY_CONNECTIONS => {
            Some("`archon-awo doctor` says how many are needed and which limit is in the way")
        }
        READ_ONLY => Some("`archon-awo doctor` says why it may only be read"),
        _ if message.starts_with("unsupported startup parameter") => Some(
            "a pooler refuses what the variable PGOPTIONS or the address asks for: name it in its ignore_startup_parameters",
        ),
        _ => None,
    }
}
