//! What a sandbox that is gone can be made from again.

use serde_json::Value;
use sqlx::FromRow;

use super::{RunError, RunStore, effects::pushed, push_history::made_after};
use crate::sql;

/// Where the work of an order is besides its sandbox.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct RebuildSource {
    /// The last bundle, below `AWO_WORK_ORDER_DIR`.
    pub bundle: Option<String>,
    /// Whether it was saved after the last push was meant.
    pub bundle_is_newer: bool,
    /// The last archive, below `AWO_ARCHIVE_URL`.
    pub archive: Option<String>,
    /// Its checksum, in hex.
    pub archive_sha256: Option<String>,
    /// Whether it was saved after the last push was meant.
    pub archive_is_newer: bool,
    pushes: Value,
}

impl RebuildSource {
    /// The commits that this order may have pushed since it began anew so many times, the newest first.
    pub fn pushed(&self, restarts: i32) -> Vec<String> {
        let intents = self.pushes.as_array().into_iter().flatten();
        let intents = intents.filter(|intent| made_after(intent) == i64::from(restarts));
        intents.flat_map(|intent| pushed(intent).rev()).map(str::to_owned).collect()
    }
}

impl RunStore {
    /// Reads where the work of the job's order is besides its sandbox.
    #[tracing::instrument(name = "db.side_effects.rebuild_source", skip_all, err)]
    pub async fn rebuild_source(&self) -> Result<Option<RebuildSource>, RunError> {
        self.patiently("run/rebuild_source", || {
            sqlx::query_as(sql!("run/rebuild_source"))
                .bind(self.fence().job_id)
                .fetch_optional(self.pool())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::RebuildSource;

    #[test]
    fn pushed_commits_come_newest_first() {
        let pushes = json!([{ "sha": "c", "before": ["a", "b"] }, { "sha": "z" }, {},
            { "sha": "later", "restarts": 1 }]);
        let source = RebuildSource {
            bundle: None,
            bundle_is_newer: true,
            archive: None,
            archive_sha256: None,
            archive_is_newer: true,
            pushes,
        };
        assert_eq!(source.pushed(0), ["c", "b", "a", "z"]);
        assert_eq!(source.pushed(1), ["later"]);
    }
}
