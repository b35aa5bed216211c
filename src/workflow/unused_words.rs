//! What an agent said and the runner did not use is told in the log of the order, with the reason.

use serde_json::json;

use super::{order_run::OrderRun, plain_text};
use crate::domain::StepName;

/// Most of such words that the log repeats, in characters; all of them are in the output of the step.
const MOST_WORDS: usize = 2_000;

impl OrderRun<'_> {
    /// Logs that `what` of the agent was not used, in its `words` where it gave any.
    pub(super) async fn note_unused(&self, step: StepName, what: &str, words: &str, why: &str) {
        tracing::info!(work_order.id = %self.order.id, step = %step, what, why, "not used");
        let words = plain_text::shorten(words.trim(), MOST_WORDS);
        let facts = json!({ "what": what, "why": why, "words": words });
        self.journal.event("warning", "agent_words_unused", Some(step), facts).await;
    }
}
