//! Opens the pool and brings the schema to the version this binary was built with.

use std::{str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions, Connection, Executor, PgPool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::Database;
use crate::sql;

/// The migrations in `migrations/`, recorded in `awo._sqlx_migrations`.
pub static MIGRATOR: Migrator = sqlx::migrate!();

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
    /// The schema is newer than the binary.
    #[error(
        "the database is on schema version {found}, this archon-awo knows only up to {expected}: update archon-awo"
    )]
    Ahead {
        /// Newest applied version.
        found: i64,
        /// Newest version known here.
        expected: i64,
    },
    /// A migration failed or was changed after it was applied.
    #[error("cannot migrate the database: {0}")]
    Migrate(#[from] MigrateError),
}

/// Which version the schema is on, compared with the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaState {
    /// Newest applied version, 0 for none.
    pub found: i64,
    /// Newest version known here.
    pub expected: i64,
}

impl SchemaState {
    /// `Ok` when binary and schema agree.
    pub fn check(self) -> Result<(), ConnectError> {
        let Self { found, expected } = self;
        match found.cmp(&expected) {
            std::cmp::Ordering::Less => Err(ConnectError::Behind { found, expected }),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(ConnectError::Ahead { found, expected }),
        }
    }
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

/// Applies what is missing. Safe when several processes do so at once: the first holds a lock.
pub async fn migrate(database: impl Into<Database>) -> Result<(), ConnectError> {
    let database = database.into();
    let state = schema_state(&database).await?;
    if state.found > state.expected {
        return state.check();
    }
    match database.mode() {
        DatabaseMode::Direct => MIGRATOR.run(database.connections()).await?,
        DatabaseMode::Pooler => migrate_in_one_transaction(database.connections()).await?,
    }
    Ok(())
}

/// Migrates over the one server connection that a pooler keeps for a transaction.
async fn migrate_in_one_transaction(pool: &PgPool) -> Result<(), MigrateError> {
    let mut migrator = sqlx::migrate!();
    // Its lock is one of the session.
    migrator.set_locking(false);
    let mut transaction = pool.begin().await?;
    for statement in [sql!("connect/lock_migrations"), sql!("connect/forget_prepared")] {
        sqlx::raw_sql(statement).execute(&mut *transaction).await?;
    }
    migrator.run_direct(None, &mut *transaction, false).await?;
    sqlx::raw_sql(sql!("connect/forget_prepared")).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

/// Reads the version of the schema.
pub async fn schema_state(database: impl Into<Database>) -> Result<SchemaState, ConnectError> {
    let database = database.into();
    let expected = MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default();
    let exists: bool = sqlx::query_scalar(sql!("connect/has_migrations"))
        .fetch_one(&database)
        .await
        .map_err(MigrateError::Execute)?;
    if !exists {
        return Ok(SchemaState { found: 0, expected });
    }
    let found = sqlx::query_scalar(sql!("connect/schema_version"))
        .fetch_one(&database)
        .await
        .map_err(MigrateError::Execute)?;
    Ok(SchemaState { found, expected })
}
