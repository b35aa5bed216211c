//! What is said to an order after its request.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::FromRow;

use super::{RunError, RunStore, Store, StoreError};
use crate::sql;

/// A follow-up prompt.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize)]
pub struct Prompt {
    /// What the agent should do.
    pub prompt: String,
    /// When it was said.
    pub created_at: DateTime<Utc>,
    /// When the step `execute` ended well with it; `None` as long as it waits.
    pub answered_at: Option<DateTime<Utc>>,
}

impl Store {
    /// Says more to an order that does not run, and queues it again; answers its id. With `reopen` it
    /// gets another pull request where its own was merged or closed.
    #[tracing::instrument(name = "db.prompts.add", skip_all, err)]
    pub async fn add_prompt(
        &self,
        id: &str,
        text: &str,
        reopen: bool,
    ) -> Result<String, StoreError> {
        let query = sqlx::query_scalar(sql!("prompts/add"))
            .bind(id)
            .bind(text)
            .bind(reopen)
            .fetch_one(self.pool());
        query.await.map_err(StoreError::on("prompts/add"))
    }

    /// Everything that was said to the order of a job, oldest first.
    #[tracing::instrument(name = "db.prompts.of_job", skip_all, err)]
    pub async fn prompts(&self, job_id: i64) -> Result<Vec<Prompt>, StoreError> {
        let query = sqlx::query_as(sql!("prompts/of_job")).bind(job_id).fetch_all(self.pool());
        query.await.map_err(StoreError::on("prompts/of_job"))
    }
}

impl RunStore {
    /// Everything that was said to the order of the run, oldest first.
    #[tracing::instrument(name = "db.prompts.of_run", skip_all, err)]
    pub async fn prompts(&self) -> Result<Vec<Prompt>, RunError> {
        self.patiently("prompts/of_job", || {
            sqlx::query_as(sql!("prompts/of_job")).bind(self.fence().job_id).fetch_all(self.pool())
        })
        .await
    }
}
