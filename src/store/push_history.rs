//! What an order has sent to its branch so far, as the intents of its pushes tell it.

use serde_json::{Value, json};

use super::{Effect, EffectRecord, RunError, RunStore};

/// The pushes of one branch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushHistory {
    /// Commits that may have arrived, the oldest first.
    pub ours: Vec<String>,
    /// The last of them that is known to have arrived.
    pub arrived: Option<String>,
    /// Commits of ours from before the order began anew: the next push replaces them.
    pub replaced: Vec<String>,
    /// Whether a push was meant of which nobody knows what became of it.
    pub is_open: bool,
    restarts: i32,
}

impl PushHistory {
    fn read(record: Option<&EffectRecord>, restarts: i32) -> Self {
        let Some(record) = record else { return Self { restarts, ..Self::default() } };
        let is_open = record.result.is_none();
        let replaced = texts(&record.intent, "replaced");
        if made_after(&record.intent) == i64::from(restarts) {
            let result = record.result.as_ref().and_then(|result| result.get("sha"));
            let arrived = result.or(record.intent.get("arrived")).and_then(Value::as_str);
            let (ours, arrived) = (record.pushed(), arrived.map(str::to_owned));
            return Self { ours, arrived, replaced, is_open, restarts };
        }
        let replaced = replaced.into_iter().chain(record.pushed()).collect();
        Self { replaced, is_open, restarts, ..Self::default() }
    }

    /// The intent of the next push.
    pub fn intent(&self, sha: &str) -> Value {
        let before: Vec<&String> = self.ours.iter().filter(|ours| *ours != sha).collect();
        json!({ "sha": sha, "before": before, "arrived": self.arrived, "replaced": self.replaced,
            "restarts": self.restarts })
    }
}

/// How often the order had begun anew when a push was meant.
pub(super) fn made_after(intent: &Value) -> i64 {
    intent.get("restarts").and_then(Value::as_i64).unwrap_or_default()
}

fn texts(value: &Value, name: &str) -> Vec<String> {
    let texts = value.get(name).and_then(Value::as_array).into_iter().flatten();
    texts.filter_map(Value::as_str).map(str::to_owned).collect()
}

impl RunStore {
    /// Reads the pushes of the branch with this full name, of an order that has begun anew so many times.
    pub async fn push_history(&self, key: &str, restarts: i32) -> Result<PushHistory, RunError> {
        let record = self.find_intent(Effect::Push, key).await?;
        Ok(PushHistory::read(record.as_ref(), restarts))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{EffectRecord, PushHistory};

    fn history(intent: Value, result: Option<Value>, restarts: i32) -> PushHistory {
        PushHistory::read(Some(&EffectRecord { intent, result }), restarts)
    }

    #[test]
    fn what_arrived_is_remembered_over_a_push_that_did_not() {
        let first = history(json!({ "sha": "a" }), Some(json!({ "sha": "a" })), 0);
        assert_eq!((first.arrived.as_deref(), first.is_open), (Some("a"), false));
        let second = history(first.intent("b"), Some(json!({ "refused": "x" })), 0);
        assert_eq!(
            (second.arrived.as_deref(), &second.ours[..]),
            (Some("a"), &["a".to_owned(), "b".to_owned()][..])
        );
        assert!(history(second.intent("c"), None, 0).is_open);
    }

    #[test]
    fn an_order_that_begins_anew_replaces_what_it_had_pushed() {
        let before =
            history(json!({ "sha": "b", "before": ["a"] }), Some(json!({ "sha": "b" })), 1);
        assert_eq!(before.replaced, ["a", "b"]);
        assert_eq!((before.ours.len(), before.arrived.clone()), (0, None));
        let again = history(before.intent("c"), Some(json!({ "sha": "c" })), 2);
        assert_eq!(again.replaced, ["a", "b", "c"]);
    }
}
