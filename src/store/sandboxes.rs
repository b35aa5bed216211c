//! What the database knows about sandboxes: how their orders stand, and the work that was saved from them.

use sqlx::FromRow;

use super::{RunError, RunStore, Store, StoreError};
use crate::{domain::WorkOrderId, sql};

/// The form of saved work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavedForm {
    /// A git bundle below `AWO_WORK_ORDER_DIR`.
    Bundle,
    /// The agent's own files, below `AWO_ARCHIVE_URL`.
    Archive,
    /// What no commit of the order holds, as a compressed tar below `AWO_WORK_ORDER_DIR`.
    LeftOut,
}

impl SavedForm {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::Archive => "archive",
            Self::LeftOut => "left_out",
        }
    }
}

/// Saved work of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedWork {
    /// The file, or the object.
    pub path: String,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// Its size in bytes.
    pub size_bytes: i64,
}

/// How an order stands whose sandbox was found.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct Standing {
    /// The order.
    pub id: String,
    /// Its status; `None` when there is no such order.
    pub status: Option<String>,
    /// Its repository.
    pub repository_url: Option<String>,
    /// Whether anything of it waits, runs or is leased.
    pub is_open: bool,
    /// How long ago it ended, in seconds, by the database's clock.
    pub ended_seconds: Option<f64>,
    /// How long ago the order was deleted to which the sandbox belongs, in seconds.
    pub deleted_seconds: Option<f64>,
}

impl Store {
    /// Notes that the work of an order was saved; the same file is noted once, and one of an order
    /// that does not exist, or of another generation, not at all.
    #[tracing::instrument(name = "db.artifacts.add_saved", skip_all, err)]
    pub async fn add_saved(
        &self,
        order: &WorkOrderId,
        generation: Option<i64>,
        form: SavedForm,
        saved: &SavedWork,
    ) -> Result<(), StoreError> {
        let query = sqlx::query(sql!("sandbox/add_saved"))
            .bind(order.as_str())
            .bind(form.as_str())
            .bind(&saved.path)
            .bind(&saved.sha256)
            .bind(saved.size_bytes)
            .bind(generation)
            .execute(self.pool());
        query.await.map(drop).map_err(StoreError::on("sandbox/add_saved"))
    }

    /// How orders stand, in one row each; with each id goes the generation of what was found under it.
    #[tracing::instrument(name = "db.agent_work_orders.standing", skip_all, err)]
    pub async fn standing(
        &self,
        orders: &[(String, Option<i64>)],
    ) -> Result<Vec<Standing>, StoreError> {
        let (ids, generations): (Vec<&str>, Vec<Option<i64>>) =
            orders.iter().map(|(id, generation)| (id.as_str(), *generation)).unzip();
        let query = sqlx::query_as(sql!("sandbox/standing"))
            .bind(ids)
            .bind(generations)
            .fetch_all(self.pool());
        query.await.map_err(StoreError::on("sandbox/standing"))
    }

    /// Plain values that the table `archon_settings` has for these settings.
    #[tracing::instrument(name = "db.archon_settings.values", skip_all, err)]
    pub async fn settings(&self, names: &[String]) -> Result<Vec<(String, String)>, StoreError> {
        let query = sqlx::query_as(sql!("settings/values")).bind(names).fetch_all(self.pool());
        query.await.map_err(StoreError::on("settings/values"))
    }
}

impl RunStore {
    /// The same for the order of a run, under its lease.
    #[tracing::instrument(name = "db.artifacts.add_saved", skip_all, err)]
    pub async fn add_saved(&self, form: SavedForm, saved: &SavedWork) -> Result<(), RunError> {
        let owned: bool = self
            .patiently("run/add_saved", || {
                sqlx::query_scalar(sql!("run/add_saved"))
                    .bind(self.fence().job_id)
                    .bind(self.fence().epoch)
                    .bind(form.as_str())
                    .bind(&saved.path)
                    .bind(&saved.sha256)
                    .bind(saved.size_bytes)
                    .fetch_one(self.pool())
            })
            .await?;
        if owned { Ok(()) } else { Err(RunError::Stale(self.fence())) }
    }
}
