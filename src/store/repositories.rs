//! What is set for a repository.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::FromRow;
use tracing::instrument;

use super::{Store, StoreError};
use crate::sql;

/// The settings of a repository, under the names that its policy gives them.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct RepositorySettings {
    /// Host, owner and name in lower case.
    pub repo_key: String,
    /// How many of its orders may run at once.
    pub limit: i16,
    /// Since when none of its orders is claimed.
    pub paused_at: Option<DateTime<Utc>>,
    /// The branch its orders start from; the remote's own when `None`.
    pub default_branch: Option<String>,
    /// The form of a sandbox, for orders that name none.
    pub default_sandbox_type: String,
    /// Whether its own agent configuration is obeyed.
    pub trusted: bool,
    /// Names of variables of the worker that its agents get too.
    pub agent_environment: Vec<String>,
    /// Whether submodules are fetched.
    pub submodules: bool,
    /// Whether contents of Git LFS are fetched.
    pub lfs: bool,
    /// Folders that are checked out; empty for everything.
    pub sparse_paths: Vec<String>,
    /// How much of its history is fetched: `full` or `shallow`.
    pub clone_depth: String,
}

impl Store {
    /// What is set for a repository, named by its address or its key; `None` when no order named it and
    /// nothing was set.
    #[instrument(name = "db.repositories.find", skip_all)]
    pub async fn find_repository(
        &self,
        repository: &str,
    ) -> Result<Option<RepositorySettings>, StoreError> {
        sqlx::query_as(sql!("repositories/find"))
            .bind(repository)
            .fetch_optional(self.pool())
            .await
            .map_err(StoreError::on("repositories/find"))
    }

    /// The names of the variables of workers that agents of any repository may have.
    #[instrument(name = "db.repositories.allowed_variables", skip_all)]
    pub async fn allowed_variables(&self) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar(sql!("repositories/allowed_variables"))
            .fetch_all(self.pool())
            .await
            .map_err(StoreError::on("repositories/allowed_variables"))
    }

    /// Sets what `policy` names, and the limit when there is one; nothing of it when the database refuses
    /// a part.
    #[instrument(name = "db.repositories.set", skip_all)]
    pub async fn set_repository(
        &self,
        repository: &str,
        policy: &Value,
        limit: Option<u8>,
    ) -> Result<(), StoreError> {
        sqlx::query(sql!("repositories/set"))
            .bind(repository)
            .bind(policy)
            .bind(limit.map(i32::from))
            .execute(self.pool())
            .await
            .map(drop)
            .map_err(StoreError::on("repositories/set"))
    }
}
