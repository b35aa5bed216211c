//! Effects on the outside world: each is stored as an intent before it happens and with its result
//! after, so that whoever goes on knows what may be there already.

use serde_json::Value;

use super::{RunError, RunStore};
use crate::sql;

/// An effect outside the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// A branch on the remote.
    Push,
    /// A pull request.
    PullRequest,
}

impl Effect {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::PullRequest => "pull_request",
        }
    }
}

/// What was meant, and what came of it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct EffectRecord {
    /// Stored before the effect.
    pub intent: Value,
    /// Stored after it.
    pub result: Option<Value>,
}

impl EffectRecord {
    /// Every commit that this order may have pushed, the oldest first.
    pub fn pushed(&self) -> Vec<String> {
        pushed(&self.intent).map(str::to_owned).collect()
    }
}

/// Every commit that the intent of a push says may have been pushed, the oldest first.
pub(super) fn pushed(intent: &Value) -> impl DoubleEndedIterator<Item = &str> {
    let before = intent.get("before").and_then(Value::as_array).into_iter().flatten();
    before.chain(intent.get("sha")).filter_map(Value::as_str)
}

impl RunStore {
    /// Stores what is about to be done outside the database.
    #[tracing::instrument(name = "db.side_effects.intend", skip_all, err)]
    pub async fn intend(&self, effect: Effect, key: &str, intent: &Value) -> Result<(), RunError> {
        let done = self
            .patiently("run/intend", || {
                sqlx::query(sql!("run/intend"))
                    .bind(self.fence().job_id)
                    .bind(self.fence().epoch)
                    .bind(effect.as_str())
                    .bind(key)
                    .bind(intent)
                    .execute(self.pool())
            })
            .await?;
        self.owned(done.rows_affected())
    }

    /// Reads what was meant before, by this owner or an earlier one.
    #[tracing::instrument(name = "db.side_effects.find", skip_all, err)]
    pub async fn find_intent(
        &self,
        effect: Effect,
        key: &str,
    ) -> Result<Option<EffectRecord>, RunError> {
        self.patiently("run/find_intent", || {
            sqlx::query_as(sql!("run/find_intent"))
                .bind(self.fence().job_id)
                .bind(effect.as_str())
                .bind(key)
                .fetch_optional(self.pool())
        })
        .await
    }

    /// Stores what came of an effect.
    #[tracing::instrument(name = "db.side_effects.complete", skip_all, err)]
    pub async fn complete_effect(
        &self,
        effect: Effect,
        key: &str,
        result: &Value,
    ) -> Result<(), RunError> {
        let done = self
            .patiently("run/complete_effect", || {
                sqlx::query(sql!("run/complete_effect"))
                    .bind(self.fence().job_id)
                    .bind(self.fence().epoch)
                    .bind(effect.as_str())
                    .bind(key)
                    .bind(result)
                    .execute(self.pool())
            })
            .await?;
        self.owned(done.rows_affected())
    }
}
