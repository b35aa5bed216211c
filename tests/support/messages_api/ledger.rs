//! What the fake served: the other side of every bill.

use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::reply::Usage;

/// One request and what became of it.
#[derive(Debug, Clone)]
pub struct Served {
    /// The model that was asked for.
    pub model: String,
    /// What the answer is said to have consumed; nothing of a refusal.
    pub usage: Usage,
    /// Whether all of the answer was sent. What was cut, or refused, is not paid for.
    pub is_complete: bool,
}

/// All requests so far, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<Vec<Served>>>);

/// The place of one request.
pub(super) struct Entry {
    ledger: Ledger,
    at: usize,
}

impl Ledger {
    pub(super) fn enter(&self, request: &Value, usage: Usage) -> Entry {
        let model = request["model"].as_str().unwrap_or_default().to_owned();
        let mut entries = self.0.lock().unwrap();
        entries.push(Served { model, usage, is_complete: false });
        Entry { ledger: self.clone(), at: entries.len() - 1 }
    }

    pub(super) fn read(&self) -> Vec<Served> {
        self.0.lock().unwrap().clone()
    }
}

impl Entry {
    /// All of the answer was sent.
    pub(super) fn complete(&self) {
        self.ledger.0.lock().unwrap()[self.at].is_complete = true;
    }
}
