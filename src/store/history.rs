//! Deleting what is older than it has to be kept, and making room for the log of days to come.

use super::{Store, StoreError};
use crate::sql;

/// A part of the history that is deleted in batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// Jobs that ended more than so many days ago, with their orders and all that belongs to them.
    Ended(i32),
    /// Jobs of the product itself that ended more than a day ago.
    Maintenance,
    /// Fires of schedules from more than so many days ago.
    Fires(i32),
    /// Log from more than so many days ago that lies in no day's table.
    StrayLog(i32),
}

impl History {
    /// The word for it in logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ended(_) => "jobs",
            Self::Maintenance => "maintenance_jobs",
            Self::Fires(_) => "fires",
            Self::StrayLog(_) => "stray_log",
        }
    }
}

impl Store {
    /// Deletes up to `limit` rows of a part of the history, the oldest first; answers how many.
    #[tracing::instrument(name = "db.history.delete", level = "debug", skip(self), err)]
    pub async fn delete_history(&self, part: History, limit: i64) -> Result<i64, StoreError> {
        let (name, query) = match part {
            History::Ended(days) => (
                "history/delete_ended",
                sqlx::query_scalar(sql!("history/delete_ended")).bind(days).bind(limit),
            ),
            History::Maintenance => (
                "history/delete_maintenance",
                sqlx::query_scalar(sql!("history/delete_maintenance")).bind(limit),
            ),
            History::Fires(days) => (
                "history/delete_fires",
                sqlx::query_scalar(sql!("history/delete_fires")).bind(days).bind(limit),
            ),
            History::StrayLog(days) => (
                "history/delete_stray_log",
                sqlx::query_scalar(sql!("history/delete_stray_log")).bind(days).bind(limit),
            ),
        };
        query.fetch_one(&self.pool().at_length()).await.map_err(StoreError::on(name))
    }

    /// Makes the tables for the log of the coming week; answers how many were missing. Without them
    /// the log goes into a table of its own that serves every day.
    #[tracing::instrument(name = "db.log_chunks.ensure_days", level = "debug", skip_all, err)]
    pub async fn ensure_log_days(&self) -> Result<i32, StoreError> {
        let made = sqlx::query_scalar(sql!("history/ensure_log_days")).fetch_one(self.pool());
        made.await.map_err(StoreError::on("history/ensure_log_days"))
    }

    /// Drops the oldest day of the log if it ended more than `days` days ago; answers the name of its
    /// table.
    #[tracing::instrument(name = "db.log_chunks.drop_day", level = "debug", skip(self), err)]
    pub async fn drop_log_day(&self, days: i32) -> Result<Option<String>, StoreError> {
        let long = self.pool().at_length();
        let dropped = sqlx::query_scalar(sql!("history/drop_log_day")).bind(days).fetch_one(&long);
        dropped.await.map_err(StoreError::on("history/drop_log_day"))
    }
}
