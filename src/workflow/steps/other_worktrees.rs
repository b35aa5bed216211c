//! Tells in the log of an order where its author may have left work that no commit sees.

use std::path::PathBuf;

use serde_json::json;

use crate::{
    domain::StepName,
    git::Sandbox,
    workflow::{failure::StepError, order_run::OrderRun},
};

/// Logs the worktrees beside the checkout that were not `known` before.
pub async fn tell_other_worktrees(
    run: &OrderRun<'_>,
    sandbox: &Sandbox,
    (step, known): (StepName, &[PathBuf]),
) -> Result<(), StepError> {
    let mut found = sandbox.other_worktrees().await?;
    found.retain(|path| !known.contains(path));
    if !found.is_empty() {
        let facts = json!({ "count": found.len(), "paths": found });
        run.journal.event("warning", "worktrees_left", Some(step), facts).await;
    }
    Ok(())
}
