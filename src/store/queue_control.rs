//! Pausing and resuming a queue or a repository.

use tracing::instrument;

use super::{Store, StoreError};
use crate::sql;

impl Store {
    /// Stops claims from a queue; running orders go on.
    #[instrument(name = "db.queues.pause", skip_all)]
    pub async fn pause_queue(&self, name: &str) -> Result<(), StoreError> {
        sqlx::query(sql!("queue_control/pause"))
            .bind(name)
            .execute(self.pool())
            .await
            .map(drop)
            .map_err(StoreError::on("queue_control/pause"))
    }

    /// Lets a queue be claimed from again.
    #[instrument(name = "db.queues.resume", skip_all)]
    pub async fn resume_queue(&self, name: &str) -> Result<(), StoreError> {
        sqlx::query(sql!("queue_control/resume"))
            .bind(name)
            .execute(self.pool())
            .await
            .map(drop)
            .map_err(StoreError::on("queue_control/resume"))
    }

    /// Stops claims of the orders of a repository, named by its address or its key; running ones go
    /// on.
    #[instrument(name = "db.repositories.pause", skip_all)]
    pub async fn pause_repository(&self, repository: &str) -> Result<(), StoreError> {
        sqlx::query(sql!("queue_control/pause_repository"))
            .bind(repository)
            .execute(self.pool())
            .await
            .map(drop)
            .map_err(StoreError::on("queue_control/pause_repository"))
    }

    /// Lets the orders of a repository be claimed again.
    #[instrument(name = "db.repositories.resume", skip_all)]
    pub async fn resume_repository(&self, repository: &str) -> Result<(), StoreError> {
        sqlx::query(sql!("queue_control/resume_repository"))
            .bind(repository)
            .execute(self.pool())
            .await
            .map(drop)
            .map_err(StoreError::on("queue_control/resume_repository"))
    }
}
