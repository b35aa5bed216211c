//! Pausing and resuming a queue.

use tracing::instrument;

use super::{Store, StoreError};
use crate::sql;

impl Store {
    /// Stops claims from a queue; running orders go on.
    #[instrument(name = "db.queues.pause", skip_all)]
    pub async fn pause_queue(&self, name: &str) -> Result<(), StoreError> {
        sqlx::query(sql!("queue_control/pause"))
            .bind(name)
            .execute(self.database())
            .await
            .map(drop)
            .map_err(StoreError::on("queue_control/pause"))
    }

    /// Lets a queue be claimed from again.
    #[instrument(name = "db.queues.resume", skip_all)]
    pub async fn resume_queue(&self, name: &str) -> Result<(), StoreError> {
        sqlx::query(sql!("queue_control/resume"))
            .bind(name)
            .execute(self.database())
            .await
            .map(drop)
            .map_err(StoreError::on("queue_control/resume"))
    }
}
