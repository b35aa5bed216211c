//! What health checks and metrics read.

use serde::Serialize;
use sqlx::FromRow;
use tracing::instrument;

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

impl Store {
    /// Whether the database answers.
    #[instrument(name = "db.ping", skip_all, level = "debug")]
    pub async fn ping(&self) -> Result<(), StoreError> {
        let answer: Result<i32, _> =
            sqlx::query_scalar(sql!("health/ping")).fetch_one(self.pool()).await;
        answer.map(drop).map_err(StoreError::on("health/ping"))
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
