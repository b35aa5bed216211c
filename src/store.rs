//! Postgres: the connection, the migrations and one file per group of statements.
//!
//! Every statement lives in `sql/` and is checked against the schema by `tests/statements.rs`.
//! A write of a run carries its fencing token and reports whether it was still the owner.

mod agent_runs;
mod connect;
mod database;
mod effects;
mod entrances;
mod health;
mod history;
mod orders;
mod output;
mod patience;
mod prompts;
mod push_history;
mod queue;
mod queue_control;
mod rebuild;
mod repositories;
mod room;
mod run;
mod sandboxes;
mod schedules;
mod schema;
mod server;
mod words;

pub use agent_runs::{CountedRun, LostRun, NewAgentRun};
pub use connect::{ConnectError, DatabaseMode, connect, options};
pub use database::{Database, Dial, Line};
pub use effects::{Effect, EffectRecord};
pub use entrances::{Entrance, OpenDatabase, check_entrances, entrances};
pub use health::{DeadWorker, FleetCounts, QueueDepth, Trouble, WorkerCounts};
pub use history::History;
pub use orders::{
    Artifact, Attempt, Cancellation, LogChunk, NewOrder, OrderDetail, OrderProgress, OrderSummary,
    StepRun,
};
pub use output::{NewArtifact, NewLogChunk};
pub use prompts::Prompt;
pub use push_history::PushHistory;
pub use queue::{
    Beat, CHANNELS, Claim, Claimed, Expired, Fence, Pulse, Renewed, Rescued, Settled, Settlement,
    Wait, WorkerRecord, heartbeat, is_listening,
};
pub use rebuild::RebuildSource;
pub use repositories::RepositorySettings;
pub use run::{OrderFacts, OrderRecord, RunError, RunStore, Stages, StartedStep, StepEnd};
pub use sandboxes::{SavedForm, SavedWork, Standing};
pub use schedules::{Fired, Schedule};
pub use schema::{MIGRATOR, SchemaState, migrate, schema_state};
pub use server::{Connections, Server, check_migration_rights, check_rights};
pub use words::words;

/// The text of `sql/<name>.sql`.
#[macro_export]
macro_rules! sql {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/", $name, ".sql"))
    };
}

/// Reads and writes the database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
}

/// Codes of Postgres, or classes of them, after which the same statement may succeed: connection,
/// operator intervention, resources, serialization and deadlock, the system underneath; and what a
/// failover or a change of the password looks like from here: a standby that is read-only (25006),
/// a login or a database that is not there yet (28, 3D), a pooler's words of its own (XX000), and
/// statements that another session or an older schema prepared (26, 0A000).
const TRANSIENT: [&str; 12] =
    ["08", "57", "53", "40", "58", "25006", "28", "3D", "XX000", "26", "0A000", "55P03"];

/// A statement that failed. It names no source: its message has all of it, in words for people.
#[derive(Debug)]
pub struct StoreError {
    /// Which file in `sql/`.
    pub statement: &'static str,
    /// What Postgres or the connection said.
    pub source: sqlx::Error,
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "database statement {} failed: {}", self.statement, words(&self.source))
    }
}

impl std::error::Error for StoreError {}

impl StoreError {
    /// For `map_err`: says which statement failed.
    pub fn on(statement: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self { statement, source }
    }

    /// The sentence of a rule of ours that refused the statement (`RAISE EXCEPTION` in a trigger or
    /// function), to be shown to a person as it is.
    pub fn refusal(&self) -> Option<&str> {
        let error = self.source.as_database_error()?;
        let code = error.code()?;
        // Classes: data exception, integrity violation, prerequisite state, no data.
        let ours = ["22", "23", "55", "P0"].iter().any(|class| code.starts_with(class));
        ours.then(|| error.message())
    }

    /// Whether the role lacks a right.
    pub fn is_forbidden(&self) -> bool {
        words::is_forbidden(&self.source)
    }

    /// Whether the same statement may succeed when tried again: the connection broke, the server
    /// restarts, or two transactions collided.
    pub fn is_transient(&self) -> bool {
        match &self.source {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(error) => error
                .code()
                .is_some_and(|code| TRANSIENT.iter().any(|class| code.starts_with(class))),
            _ => false,
        }
    }
}

impl Store {
    /// A store over an open pool.
    pub fn new(database: impl Into<Database>) -> Self {
        Self { database: database.into() }
    }

    /// Where statements go, those of other layers too.
    pub fn pool(&self) -> &Database {
        &self.database
    }
}
