//! What the server allows: whether it can be used at all, whether it can be written to, how many connections it
//! gives, and which rights are missing; each with the statement that mends it.

use sqlx::FromRow;

use super::{ConnectError, Database, DatabaseMode, words::words};
use crate::sql;

/// Oldest server that is supported, as `server_version_num`: PostgreSQL 14.
const OLDEST_SERVER: i32 = 140_000;

/// The server behind a connection.
#[derive(Debug, Clone, FromRow)]
pub struct Server {
    version_number: i32,
    /// Its version, as it says it.
    pub version: String,
    database: String,
    role: String,
    encoding: String,
    standby: bool,
    read_only: bool,
    remedy: String,
}

impl Server {
    /// Asks the server.
    pub async fn look(database: &Database) -> Result<Self, ConnectError> {
        let asked = sqlx::query_as(sql!("connect/server")).fetch_one(database).await;
        asked.map_err(|error| ConnectError::Unanswered(words(&error)))
    }

    /// An error when its version or its encoding is one that nothing here works with.
    pub(super) fn check(&self) -> Result<(), ConnectError> {
        if self.version_number < OLDEST_SERVER {
            return Err(ConnectError::TooOld(self.version.clone()));
        }
        if self.encoding != "UTF8" {
            let (database, encoding) = (self.database.clone(), self.encoding.clone());
            return Err(ConnectError::Encoding { database, encoding });
        }
        Ok(())
    }

    /// An error when it can only be read.
    pub fn writable(&self) -> Result<(), ConnectError> {
        let Self { database, role, remedy, .. } = self;
        if self.standby {
            return Err(ConnectError::Standby { database: database.clone() });
        }
        if self.read_only {
            let (database, role, remedy) = (database.clone(), role.clone(), remedy.clone());
            return Err(ConnectError::ReadOnly { database, role, remedy });
        }
        Ok(())
    }
}

/// How many connections the server gives, and how many a worker wants.
#[derive(Debug, Clone, FromRow)]
pub struct Connections {
    role: String,
    database: String,
    role_limit: i32,
    database_limit: i32,
    server_limit: i32,
    open: i64,
    /// `AWO_DATABASE_CONNECTIONS`.
    #[sqlx(skip)]
    pool: u32,
    /// One for heartbeats and, where notifications can be heard, one for those.
    #[sqlx(skip)]
    more: u32,
}

impl Connections {
    /// Asks the server, for a worker whose pool may have `pool` connections.
    pub async fn look(database: &Database, pool: u32) -> Result<Self, ConnectError> {
        let asked = sqlx::query_as(sql!("connect/connections")).fetch_one(database).await;
        let found: Self = asked.map_err(|error| ConnectError::Unanswered(words(&error)))?;
        let more = if database.mode() == DatabaseMode::Direct { 2 } else { 1 };
        Ok(Self { pool, more, ..found })
    }

    fn needed(&self) -> i64 {
        i64::from(self.pool) + i64::from(self.more)
    }

    /// The lowest limit, who sets it in words, and the statement that raises it.
    fn limit(&self) -> (i32, String, String) {
        let Self { role, database, .. } = self;
        let needed = self.needed();
        let mut lowest = (
            self.server_limit,
            "the server gives".to_owned(),
            format!("raise max_connections of the server ({needed} for each worker)"),
        );
        let others = [
            (self.role_limit, "role", role, "ROLE"),
            (self.database_limit, "database", database, "DATABASE"),
        ];
        for (limit, kind, name, word) in others {
            if (0..lowest.0).contains(&limit) {
                let may = format!("the {kind} {name} may have");
                let raise = format!(
                    "run `ALTER {word} {name} CONNECTION LIMIT {needed}` ({needed} for each worker)"
                );
                lowest = (limit, may, raise);
            }
        }
        lowest
    }

    /// What is wanted, and what there is.
    pub fn describe(&self) -> String {
        let (limit, whose, _) = self.limit();
        let more = if self.more == 1 { "one more" } else { "two more" };
        let (needed, pool, open) = (self.needed(), self.pool, self.open);
        format!(
            "this worker uses up to {needed} (AWO_DATABASE_CONNECTIONS is {pool}, and {more}); \
             {whose} {limit}; {open} are open on the server"
        )
    }

    /// What to do, when there are fewer than wanted.
    pub fn lacking(&self) -> Option<String> {
        let (limit, _, raise) = self.limit();
        (i64::from(limit) < self.needed())
            .then(|| format!("{raise}, or lower AWO_DATABASE_CONNECTIONS"))
    }
}

/// An error that names each right this role lacks to work on the schema that is there; nothing is missing where
/// there is none yet.
pub async fn check_rights(database: &Database) -> Result<(), ConnectError> {
    let missing = sqlx::query_scalar(sql!("connect/missing_rights")).fetch_all(database).await;
    let missing: Vec<String> = missing.map_err(|error| ConnectError::Unanswered(words(&error)))?;
    if missing.is_empty() {
        return Ok(());
    }
    let role = role(database).await?;
    Err(ConnectError::Rights { role, purpose: "on the schema", statements: missing.join("; ") })
}

/// What this role lacks to make or change the schema.
#[derive(Debug, FromRow)]
struct Missing {
    statement: Option<String>,
    owner: Option<String>,
}

/// An error that names what this role lacks to make the schema, or to bring it up to date.
pub async fn check_migration_rights(database: &Database) -> Result<(), ConnectError> {
    let missing = sqlx::query_as(sql!("connect/missing_to_migrate")).fetch_all(database).await;
    let missing: Vec<Missing> = missing.map_err(|error| ConnectError::Unanswered(words(&error)))?;
    if missing.is_empty() {
        return Ok(());
    }
    let role = role(database).await?;
    if let Some(owner) = missing.iter().find_map(|row| row.owner.clone()) {
        return Err(ConnectError::Owner { role, owner });
    }
    let statements = missing.into_iter().filter_map(|row| row.statement).collect::<Vec<_>>();
    let statements = statements.join("; ");
    Err(ConnectError::Rights { role, purpose: "to make the schema", statements })
}

async fn role(database: &Database) -> Result<String, ConnectError> {
    Ok(Server::look(database).await?.role)
}
