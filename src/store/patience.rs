//! For how long a statement that failed is worth another try.

use std::time::Duration;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::StoreError;

/// How long a refusal of the database is waited out that is not a lost connection: longer than a lock of
/// a careful administrator, a failover's last writes, or the moment between a migration and its grants.
pub(super) const REFUSAL: Duration = Duration::from_mins(3);

/// Codes of Postgres, or classes of them, that speak of the connection and not of the statement: it broke,
/// the server restarts or is a standby, or nobody may log in at the moment.
const CONNECTION: [&str; 6] = ["08", "57P", "25006", "28", "3D", "53300"];
/// Codes that the same statement meets again however often it is sent: its data, its own text, or a rule
/// of ours. A missing permission (42501) is none: somebody may grant it.
const FOREVER: [&str; 3] = ["22", "42", "P0"];
const NO_PERMISSION: &str = "42501";

/// What another try of the same statement may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// The database was not reached: it is tried as long as there is a lease to work under.
    WhileLeased,
    /// The database refused, for something that may pass: it is tried for [`REFUSAL`].
    Minutes,
    /// It never succeeds.
    Never,
}

impl StoreError {
    /// For how long the statement is worth another try.
    pub(super) fn patience(&self) -> Patience {
        match &self.source {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::WorkerCrashed => Patience::WhileLeased,
            sqlx::Error::Database(error) => {
                // The server closes the connection after such an error, whatever its code.
                let postgres = error.try_downcast_ref::<PgDatabaseError>();
                let ended = postgres.is_some_and(|error| {
                    matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)
                });
                let code = error.code().unwrap_or_default();
                let is_of = |classes: &[&str]| classes.iter().any(|class| code.starts_with(class));
                if ended || is_of(&CONNECTION) {
                    Patience::WhileLeased
                } else if is_of(&FOREVER) && code != NO_PERMISSION {
                    Patience::Never
                } else {
                    Patience::Minutes
                }
            }
            _ => Patience::Never,
        }
    }
}
