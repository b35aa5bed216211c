//! The version of the schema: which one is there, which programs work on it, and the way to the newest.
//!
//! During a rollout old and new programs share one schema. A newer one is no reason to refuse: it was only
//! expanded, until `awo.oldest_program()` says otherwise.

use sqlx::{
    PgConnection, PgPool,
    migrate::{MigrateError, Migrator},
};
use tracing::{info, warn};

use super::{
    ConnectError, Database, DatabaseMode, Server,
    server::{check_migration_rights, check_rights},
    words::{is_forbidden, words},
};
use crate::sql;

/// The migrations in `migrations/`, recorded in `awo._sqlx_migrations`.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// How often a migration tries to get its locks: 3 s each, with a pause of 1 s (`sql/connect/`), so for about
/// two minutes.
const TRIES: u32 = 30;

/// SQLSTATE of a lock that was not to be had in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Which version the schema is on, compared with the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaState {
    /// Newest applied version, 0 for none.
    pub found: i64,
    /// Newest version known here.
    pub expected: i64,
    /// The version for which the oldest program was made that still works here.
    pub oldest: i64,
}

impl SchemaState {
    /// `Ok` when this binary works on this schema: on its own version, and on a newer one that did not
    /// leave it behind.
    pub fn check(self) -> Result<(), ConnectError> {
        let Self { found, expected, oldest } = self;
        if found < expected {
            Err(ConnectError::Behind { found, expected })
        } else if expected < oldest {
            Err(ConnectError::TooNew { found, expected, oldest })
        } else {
            Ok(())
        }
    }

    /// Whether a newer program has been here.
    pub fn is_newer(self) -> bool {
        self.found > self.expected
    }
}

/// Applies what is missing. Safe when several processes do so at once, and while workers run: the first
/// holds a lock, and no statement of theirs waits for long behind one that a migration waits for.
///
/// A newer schema is left as it is, and is an error only when it left this binary behind. One that is up to date
/// is left to its owner, and what is missing to change one that is not is named.
pub async fn migrate(database: impl Into<Database>) -> Result<(), ConnectError> {
    let database = database.into();
    Server::look(&database).await?.writable()?;
    for _ in 0..TRIES {
        let state = schema_state(&database).await?;
        match check_migration_rights(&database).await {
            Err(ConnectError::Owner { .. } | ConnectError::Rights { .. })
                if state.check().is_ok() =>
            {
                return Ok(());
            }
            checked => checked?,
        }
        if state.is_newer() {
            info!(
                schema = state.found,
                program = state.expected,
                "the schema is newer than this program: left as it is"
            );
            return state.check();
        }
        let applied = match database.mode() {
            DatabaseMode::Direct => migrate_on_one_connection(database.connections()).await,
            DatabaseMode::Pooler => migrate_in_one_transaction(database.connections()).await,
        };
        match applied {
            Ok(()) => return Ok(()),
            Err(error) if is_lock_wait(&error) => {
                warn!("a migration waits for a lock, and lets others pass meanwhile");
                sqlx::raw_sql(sql!("connect/wait_a_moment"))
                    .execute(database.connections())
                    .await
                    .map_err(MigrateError::Execute)?;
            }
            // A newer program was faster by a moment: the next look sees it.
            Err(MigrateError::VersionMissing(version))
                if version > state.expected && schema_state(&database).await?.is_newer() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ConnectError::Locked)
}

/// Whether a statement gave up waiting for a lock.
fn is_lock_wait(error: &MigrateError) -> bool {
    let (MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _)) = error else {
        return false;
    };
    source.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref()
        == Some(LOCK_NOT_AVAILABLE)
}

/// Migrates over a connection of its own, which takes its settings and its lock with it.
async fn migrate_on_one_connection(pool: &PgPool) -> Result<(), MigrateError> {
    let mut connection = pool.acquire().await?;
    connection.close_on_drop();
    limit_waits(&mut connection, false).await?;
    MIGRATOR.run_direct(None, &mut *connection, false).await
}

/// Migrates over the one server connection that a pooler keeps for a transaction.
async fn migrate_in_one_transaction(pool: &PgPool) -> Result<(), MigrateError> {
    let mut migrator = sqlx::migrate!();
    // Its lock is one of the session.
    migrator.set_locking(false);
    let mut transaction = pool.begin().await?;
    limit_waits(&mut transaction, true).await?;
    for statement in [sql!("connect/lock_migrations"), sql!("connect/forget_prepared")] {
        sqlx::raw_sql(statement).execute(&mut *transaction).await?;
    }
    migrator.run_direct(None, &mut *transaction, false).await?;
    sqlx::raw_sql(sql!("connect/forget_prepared")).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

/// A statement that waits for a table's lock makes all later ones wait behind it, heartbeats too. And a migration of
/// a large table may take longer than its role allows for a statement.
async fn limit_waits(
    connection: &mut PgConnection,
    for_transaction: bool,
) -> Result<(), sqlx::Error> {
    let statement = sqlx::query(sql!("connect/limit_waits")).bind(for_transaction);
    statement.persistent(false).execute(connection).await.map(drop)
}

/// Reads the version of the schema.
pub async fn schema_state(database: impl Into<Database>) -> Result<SchemaState, ConnectError> {
    let database = database.into();
    let expected = MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default();
    let (found, oldest) = match versions(&database).await {
        // Which grants would do is worth more than the name of the first thing that was refused.
        Err(error) if is_forbidden(&error) => {
            check_rights(&database).await?;
            return Err(ConnectError::Unreadable(words(&error)));
        }
        versions => versions.map_err(|error| ConnectError::Unreadable(words(&error)))?,
    };
    Ok(SchemaState { found, expected, oldest })
}

/// The newest applied version, and that of the oldest program that works on it; 0 for none.
async fn versions(database: &Database) -> Result<(i64, i64), sqlx::Error> {
    let (has_migrations, has_oldest): (bool, bool) =
        sqlx::query_as(sql!("connect/has_migrations")).fetch_one(database).await?;
    if !has_migrations {
        return Ok((0, 0));
    }
    let found = sqlx::query_scalar(sql!("connect/schema_version")).fetch_one(database).await?;
    let oldest = if has_oldest {
        sqlx::query_scalar(sql!("connect/oldest_program")).fetch_one(database).await?
    } else {
        0
    };
    Ok((found, oldest))
}
