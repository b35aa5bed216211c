//! What a run keeps of a step for people: texts, as artifacts.

use serde_json::json;
use tracing::warn;

use super::{
    failure::{Failure, StepError},
    order_run::OrderRun,
};
use crate::{
    domain::StepName,
    store::{NewArtifact, StartedStep},
};

impl OrderRun<'_> {
    /// Says in the log of the order that a file was not written which nothing depends on.
    pub(super) async fn note_unwritten(&self, step: Option<StepName>, failure: &Failure) {
        warn!(work_order.id = %self.order.id, "the order goes on without a file: {}", failure.message);
        let facts = json!({ "error": failure.message, "error_class": failure.class.as_str() });
        self.journal.event("warning", "file_not_written", step, facts).await;
    }

    /// Keeps a text as an artifact.
    pub async fn keep(
        &self,
        kind: &'static str,
        step: StepName,
        started: &StartedStep,
        text: &str,
    ) -> Result<(), StepError> {
        let name = format!("{}-{step}-{}.{kind}", self.number_of(step), started.runs);
        let text = self.workflow.redactor.text(text);
        self.keep_output(&name, kind, step, &text).await
    }

    /// Keeps what an agent said. It was paid for: without room for its file, the database alone has it.
    pub(super) async fn keep_output(
        &self,
        name: &str,
        kind: &'static str,
        step: StepName,
        text: &str,
    ) -> Result<(), StepError> {
        let artifact = match self.dossier.keep("outputs", name, kind, step, text).await {
            Ok(artifact) => artifact,
            Err(StepError::Failed(failure)) => {
                self.note_unwritten(Some(step), &failure).await;
                NewArtifact::without_file(kind, step, text)
            }
            Err(stopped) => return Err(stopped),
        };
        Ok(self.store.add_artifact(&self.order.id, &artifact).await?)
    }
}
