//! Sets work aside that the order no longer builds on: saved first, then taken away.

use serde_json::json;
use tracing::info;

use super::{
    failure::{Failure, StepError},
    order_run::OrderRun,
};
use crate::{
    domain::ErrorClass,
    store::{SavedForm, SavedWork},
};

impl OrderRun<'_> {
    /// Saves all that the sandbox of the order holds beyond the commit it started from, as a bundle that is
    /// noted with the order, and takes the sandbox away. Fine to repeat after a crash.
    pub(super) async fn set_sandbox_aside(&self) -> Result<(), StepError> {
        let id = &self.order.id;
        let Some(claim) = self.workflow.git.claim_sandbox(id).await? else {
            let failure =
                Failure::new(ErrorClass::LostWorker, "the sandbox is held by another process");
            return Err(Failure { waits: true, ..failure }.into());
        };
        let folder = self.workflow.settings.work_orders.join(id.as_str()).join("bundles");
        // Without asking the remote: what it has now is about to be replaced.
        if let Some(bundle) = claim.save(None, &folder).await? {
            let saved = SavedWork {
                path: format!("{id}/bundles/{}.bundle", bundle.files),
                sha256: bundle.sha256,
                size_bytes: i64::try_from(bundle.size).unwrap_or(i64::MAX),
            };
            self.store.add_saved(SavedForm::Bundle, &saved).await?;
            info!(work_order.id = %id, bundle = saved.path, "earlier work is saved");
            let facts = json!({ "bundle": saved.path, "base": bundle.base, "head": bundle.head });
            self.journal.event("info", "work_saved", None, facts).await;
        }
        if let Some(kept) = claim.save_left_out(&folder).await? {
            let name = kept.path.file_name().unwrap_or_default().to_string_lossy();
            let saved = SavedWork {
                path: format!("{id}/bundles/{name}"),
                sha256: kept.sha256,
                size_bytes: i64::try_from(kept.size).unwrap_or(i64::MAX),
            };
            self.store.add_saved(SavedForm::LeftOut, &saved).await?;
        }
        claim.discard().await?.delete().await?;
        Ok(())
    }
}
