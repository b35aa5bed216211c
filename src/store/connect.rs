//! Opens the pool, and says in a sentence why the database cannot be used.

use std::{str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions, Connection, Error, Executor,
    migrate::MigrateError,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    Database, Server,
    room::refusal,
    words::{is_shortage, migration_words, words},
};
use crate::sql;

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
        "cannot reach the database {address}: {reason}; check DATABASE_URL and that the server runs"
    )]
    Unreachable {
        /// Host, port and database, without the password.
        address: String,
        /// What the server or the driver said.
        reason: String,
    },
    /// The server answers, and gives no connection.
    #[error(
        "the database {address} gives no connection: {reason}; a worker needs AWO_DATABASE_CONNECTIONS and two more of them"
    )]
    Full {
        /// Host, port and database, without the password.
        address: String,
        /// What the server said.
        reason: String,
    },
    /// A question to the server failed.
    #[error("the database cannot be asked what it allows: {0}")]
    Unanswered(String),
    /// Text that people and agents write would be refused or garbled.
    #[error(
        "the database {database} has the encoding {encoding}, which cannot keep every text: make one with `CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0` and name it in DATABASE_URL"
    )]
    Encoding {
        /// Its name.
        database: String,
        /// Its encoding, in the server's word.
        encoding: String,
    },
    /// A copy of another server.
    #[error(
        "the server of the database {database} is a standby, which can only be read: name its primary in DATABASE_URL, or promote it"
    )]
    Standby {
        /// The database's name.
        database: String,
    },
    /// A setting turns writing off.
    #[error(
        "the database {database} may only be read by the role {role} (default_transaction_read_only is on): run `{remedy}`"
    )]
    ReadOnly {
        /// The database's name.
        database: String,
        /// Who is signed in.
        role: String,
        /// The statement that turns it on again.
        remedy: String,
    },
    /// Grants are missing, or rows are hidden.
    #[error(
        "the role {role} lacks rights {purpose}: run `{statements}` as a superuser or the owner"
    )]
    Rights {
        /// Who is signed in.
        role: String,
        /// What for.
        purpose: &'static str,
        /// What gives them, with `;` in between.
        statements: String,
    },
    /// Somebody else made the schema.
    #[error(
        "the schema awo belongs to the role {owner}, and the role {role} may not change it: run `archon-awo migrate` as {owner}"
    )]
    Owner {
        /// Who is signed in.
        role: String,
        /// Who made the schema.
        owner: String,
    },
    /// The record of migrations cannot be read.
    #[error("cannot read the version of the schema: {0}")]
    Unreadable(String),
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
    Migrate(String),
}

impl From<MigrateError> for ConnectError {
    fn from(error: MigrateError) -> Self {
        Self::Migrate(migration_words(&error))
    }
}

/// Parses the address for `mode`.
pub fn options(url: &SecretString, mode: DatabaseMode) -> Result<PgConnectOptions, ConnectError> {
    let options = PgConnectOptions::from_str(url.expose_secret())
        .map_err(|error| ConnectError::Url(error.to_string()))?
        .application_name("archon-awo")
        // Poolers refuse it as they come, in session mode too; the server's own default loses nothing.
        .extra_float_digits(None)
        .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(2));
    Ok(match mode {
        DatabaseMode::Direct => options,
        DatabaseMode::Pooler => options.statement_cache_capacity(0),
    })
}

/// Opens a pool, and checks the server's version and encoding.
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
    let unreachable = |error: Error| match words(&error) {
        reason if is_shortage(&error) => ConnectError::Full { address, reason },
        reason => ConnectError::Unreachable { address, reason },
    };
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
                connection.execute(sqlx::raw_sql(sql!("connect/limit_session"))).await?;
                Ok(())
            })
        });
    }
    let pool = pool.connect_with(options).await;
    let database = match pool {
        Ok(pool) => Database::new(pool, mode),
        // The pool tried until its time was over, and kept the reason to itself.
        Err(Error::PoolTimedOut) => {
            return Err(unreachable(refusal(&attempt).await.unwrap_or(Error::PoolTimedOut)));
        }
        Err(error) => return Err(unreachable(error)),
    };
    Server::look(&database).await?.check()?;
    Ok(database)
}
