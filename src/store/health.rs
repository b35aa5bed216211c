//! What health checks and metrics read.

use serde::Serialize;
use sqlx::FromRow;
use tracing::instrument;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::sql;

/// What waits in one queue.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize)]
pub struct QueueDepth {
    /// The queue.
    pub queue: String,
    /// Jobs that could run now.
    pub ready: i64,
    /// Jobs whose time has not come.
    pub scheduled: i64,
    /// How long the oldest ready job has waited, in seconds; 0 when none does.
    pub oldest_wait_seconds: f64,
}

/// The workers of all hosts that have not said farewell.
#[derive(Debug, Clone, Copy, PartialEq, FromRow, Serialize)]
pub struct WorkerCounts {
    /// Those that take orders.
    pub alive: i64,
    /// Those that were told to stop and finish what they run.
    pub draining: i64,
    /// Those that have been silent for a minute.
    pub dead: i64,
    /// Seconds since the last heartbeat of any of them; `None` when there are none.
    pub last_heartbeat_seconds: Option<f64>,
}

/// Figures that every replica shows alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct FleetCounts {
    /// Rows of `awo.stuck`, up to a thousand.
    pub stuck: i64,
    /// Rows of `awo.invariants` at the last check; `None` when that is half an hour ago.
    pub broken_promises: Option<i64>,
    /// Orders that completed within the last hour.
    pub completed: i64,
    /// Orders that failed within the last hour.
    pub failed: i64,
    /// Orders that were cancelled within the last hour.
    pub cancelled: i64,
}

/// A worker that has been silent for a minute and not said farewell.
#[derive(Debug, Clone, FromRow)]
pub struct DeadWorker {
    /// Its process, drawn anew at every start.
    pub worker_id: Uuid,
    /// Where it ran.
    pub hostname: String,
    /// Its process id there.
    pub pid: i32,
    /// How many leases it still holds.
    pub running: i64,
    /// Seconds since its last heartbeat.
    pub silent_seconds: f64,
}

/// Something a person should look at.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct Trouble {
    /// What is wrong, in the words of `awo.stuck` or `awo.invariants`.
    pub problem: String,
    /// The order, job or repository.
    pub subject: String,
    /// For how long, in seconds; `None` for a broken promise.
    pub seconds: Option<f64>,
}

impl Store {
    /// Whether the database answers.
    #[instrument(name = "db.ping", skip_all, level = "debug")]
    pub async fn ping(&self) -> Result<(), StoreError> {
        let answer: Result<i32, _> =
            sqlx::query_scalar(sql!("health/ping")).fetch_one(self.pool()).await;
        answer.map(drop).map_err(StoreError::on("health/ping"))
    }

    /// How many workers there are in each state.
    #[instrument(name = "db.workers.count", skip_all, level = "debug")]
    pub async fn worker_counts(&self) -> Result<WorkerCounts, StoreError> {
        let counts = sqlx::query_as(sql!("health/workers")).fetch_one(self.pool());
        counts.await.map_err(StoreError::on("health/workers"))
    }

    /// The workers that died last, at most a hundred.
    #[instrument(name = "db.workers.dead", skip_all, level = "debug")]
    pub async fn dead_workers(&self) -> Result<Vec<DeadWorker>, StoreError> {
        let dead = sqlx::query_as(sql!("health/dead_workers")).fetch_all(self.pool());
        dead.await.map_err(StoreError::on("health/dead_workers"))
    }

    /// Takes workers that have been silent for a day for stopped, and forgets them after a week.
    /// Answers how many of each.
    #[instrument(name = "db.workers.forget", skip_all, level = "debug")]
    pub async fn forget_workers(&self) -> Result<(i64, i64), StoreError> {
        let forgotten = sqlx::query_as(sql!("health/forget_workers")).fetch_one(self.pool());
        forgotten.await.map_err(StoreError::on("health/forget_workers"))
    }

    /// What `awo.stuck` shows, the longest first.
    #[instrument(name = "db.jobs.stuck", skip_all, level = "debug")]
    pub async fn stuck(&self) -> Result<Vec<Trouble>, StoreError> {
        let stuck = sqlx::query_as(sql!("health/stuck")).fetch_all(self.pool());
        stuck.await.map_err(StoreError::on("health/stuck"))
    }

    /// What `awo.invariants` shows: empty when all is well.
    #[instrument(name = "db.jobs.broken_promises", skip_all, level = "debug")]
    pub async fn broken_promises(&self) -> Result<Vec<Trouble>, StoreError> {
        let broken = sqlx::query_as(sql!("health/broken_promises")).fetch_all(self.pool());
        broken.await.map_err(StoreError::on("health/broken_promises"))
    }

    /// Notes what a check found, for every replica to show.
    #[instrument(name = "db.checks.note", skip_all, level = "debug")]
    pub async fn note_check(&self, name: &str, found: usize) -> Result<(), StoreError> {
        let noted = sqlx::query(sql!("health/note_check"))
            .bind(name)
            .bind(i32::try_from(found).unwrap_or(i32::MAX))
            .execute(self.pool());
        noted.await.map(drop).map_err(StoreError::on("health/note_check"))
    }

    /// What all replicas show alike, besides queues and workers.
    #[instrument(name = "db.fleet.count", skip_all, level = "debug")]
    pub async fn fleet_counts(&self) -> Result<FleetCounts, StoreError> {
        let counts = sqlx::query_as(sql!("health/fleet")).fetch_one(self.pool());
        counts.await.map_err(StoreError::on("health/fleet"))
    }

    /// What waits in every queue that has waiting jobs.
    #[instrument(name = "db.jobs.queue_depth", skip_all, level = "debug")]
    pub async fn queue_depth(&self) -> Result<Vec<QueueDepth>, StoreError> {
        sqlx::query_as(sql!("health/queue_depth"))
            .fetch_all(self.pool())
            .await
            .map_err(StoreError::on("health/queue_depth"))
    }
}
