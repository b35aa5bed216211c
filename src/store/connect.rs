//! Opens the pool, and says in a sentence why the database cannot be used.

use std::{str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions, Connection, Executor,
    migrate::MigrateError,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::Database;
use crate::sql;

/// Oldest server that is supported, as `server_version_num`: PostgreSQL 14.
const OLDEST_SERVER: i32 = 140_000;

/// How long a connection may lie idle and be used without asking whether it still works. A busy worker
/// saves a round trip per statement; what breaks within that time is tried again by its caller.
const TRUSTED_FOR: Duration = Duration::from_secs(5);

/// How the database is reached (`AWO_DATABASE_MODE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum DatabaseMode {
    /// Straight to the server, or through a pooler in session mode.
    #[default]
    Direct,
    /// Through a pooler in transaction mode: no LISTEN, no named prepared statements.
    Pooler,
}

/// Why the database cannot be used; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address does not parse. Its text is not repeated: it may hold a password.
    #[error(
        "DATABASE_URL is not a Postgres address: expected postgres://user:password@host:port/database ({0})"
    )]
    Url(String),
    /// No connection.
    #[error(
        "cannot reach the database {address}: {source}; check DATABASE_URL and that the server runs"
    )]
    Unreachable {
        /// Host, port and database, without the password.
        address: String,
        /// What the driver said.
        source: sqlx::Error,
    },
    /// An old server.
    #[error("the database server is version {0}: expected PostgreSQL 14 or newer")]
    TooOld(String),
    /// The schema is older than the binary and may not be changed.
    #[error(
        "the database is on schema version {found}, this archon-awo needs {expected}: run `archon-awo migrate`"
    )]
    Behind {
        /// Newest applied version, 0 for none.
        found: i64,
        /// Newest version known here.
        expected: i64,
    },
    /// The schema has left programs as old as this one behind.
    #[error(
        "the database is on schema version {found}, where programs made for a version before {oldest} do not work any more; this archon-awo was made for {expected}: update archon-awo"
    )]
    TooNew {
        /// Newest applied version.
        found: i64,
        /// Newest version known here.
        expected: i64,
        /// The version of the oldest program that works on it.
        oldest: i64,
    },
    /// A migration waits for a lock that another session does not give up.
    #[error(
        "cannot migrate the database: another session holds a lock on its tables and does not let go, a backup or an open transaction perhaps (see pg_stat_activity); nothing was changed, start this again later"
    )]
    Locked,
    /// A migration failed or was changed after it was applied.
    #[error("cannot migrate the database: {0}")]
    Migrate(#[from] MigrateError),
}

/// Parses the address for `mode`.
pub fn options(url: &SecretString, mode: DatabaseMode) -> Result<PgConnectOptions, ConnectError> {
    let options = PgConnectOptions::from_str(url.expose_secret())
        .map_err(|error| ConnectError::Url(error.to_string()))?
        .application_name("archon-awo")
        .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(2));
    Ok(match mode {
        DatabaseMode::Direct => options,
        // A pooler refuses parameters it does not track.
        DatabaseMode::Pooler => options.statement_cache_capacity(0).extra_float_digits(None),
    })
}

/// Opens a pool and checks the server's version.
///
/// A connection that cannot be had within 10 s is an error.
pub async fn connect(
    url: &SecretString,
    mode: DatabaseMode,
    max_connections: u32,
) -> Result<Database, ConnectError> {
    let options = options(url, mode)?;
    let address = format!(
        "{}:{}/{}",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or_default()
    );
    let unreachable = |source| ConnectError::Unreachable { address, source };
    let attempt = options.clone();
    let mut pool = PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(Duration::from_secs(10))
        .test_before_acquire(false)
        .before_acquire(|connection, idle| {
            Box::pin(
                async move { Ok(idle.idle_for < TRUSTED_FOR || connection.ping().await.is_ok()) },
            )
        });
    if mode == DatabaseMode::Direct {
        pool = pool.after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute(sqlx::raw_sql(sql!("connect/plan_once"))).await?;
                Ok(())
            })
        });
    }
    let pool = pool.connect_with(options).await;
    let database = match pool {
        Ok(pool) => Database::new(pool, mode),
        // The pool tried until its time was over, and kept the reason to itself.
        Err(sqlx::Error::PoolTimedOut) => {
            return Err(unreachable(reason(&attempt).await));
        }
        Err(error) => return Err(unreachable(error)),
    };
    let version: (i32, String) =
        match sqlx::query_as(sql!("connect/server_version")).fetch_one(&database).await {
            Ok(version) => version,
            Err(error) => return Err(unreachable(error)),
        };
    if version.0 < OLDEST_SERVER {
        return Err(ConnectError::TooOld(version.1));
    }
    Ok(database)
}

/// Why a connection cannot be made, from one more attempt.
async fn reason(options: &PgConnectOptions) -> sqlx::Error {
    match tokio::time::timeout(Duration::from_secs(2), options.connect()).await {
        Ok(Err(error)) => error,
        Ok(Ok(_)) | Err(_) => sqlx::Error::PoolTimedOut,
    }
}
