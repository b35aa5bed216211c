//! What is saved of a sandbox before it goes: its work, what no commit holds, and the agent's own files, each
//! without the secrets that are known.

use std::path::Path;

use secrecy::SecretString;
use tracing::info;

use super::{Obstacle, Sandboxes, Sweep, Urgency, busy};
use crate::{
    archive::Stored,
    domain::is_place,
    git::{Claim, FoundSandbox},
    store::{SavedForm, SavedWork, Standing, StoreError},
};

/// A sandbox whose work is saved.
pub(super) struct Saved {
    pub(super) claim: Claim,
    pub(super) bundle: Option<SavedWork>,
}

impl Sandboxes {
    /// The same with a redactor that knows what agents may have had in their environment.
    pub(super) async fn knowing_variables(&self) -> Result<Self, StoreError> {
        let names = self.store.allowed_variables().await?;
        let values = names.iter().filter_map(|name| self.inheritable.get(name));
        // Files name folders and addresses for good reasons.
        let secrets = values.filter(|value| !is_place(value)).cloned().map(SecretString::from);
        let git = self.git.with_redactor(self.git.redactor().with(secrets));
        Ok(Self { git, ..self.clone() })
    }

    /// Saves what only the sandbox has.
    pub(super) async fn save(
        &self,
        found: &FoundSandbox,
        standing: &Standing,
        sweep: &Sweep,
    ) -> Result<Saved, Obstacle> {
        let order = &found.order;
        let git = |doing| move |error| Obstacle::Git(doing, error);
        let claim = self.claim(found, standing, sweep).await?;
        let remote = self.remote(order).await;
        let folder = self.work_orders.join(order.as_str()).join("bundles");
        let bundle = claim
            .save(remote.as_ref(), &folder)
            .await
            .map_err(git("its work cannot be saved, so it stays"))?;
        let bundle = bundle.map(|bundle| SavedWork {
            path: format!("{order}/bundles/{}.bundle", bundle.files),
            sha256: bundle.sha256,
            size_bytes: i64::try_from(bundle.size).unwrap_or(i64::MAX),
        });
        if let Some(bundle) = &bundle {
            let form = SavedForm::Bundle;
            let noted = self.store.add_saved(order, found.generation, form, bundle).await;
            noted.map_err(Obstacle::Store)?;
        }
        self.keep_left_out(&claim, found, &folder).await?;
        // A disk that fills cannot wait for an upload; what matters of the work has its bundle.
        let archive = self.archive.as_ref().filter(|_| sweep.urgency == Urgency::Scheduled);
        let Some(archive) = archive else { return Ok(Saved { claim, bundle }) };
        let folders = claim.agent_folders().await.map_err(git("it cannot be read"))?;
        if folders.is_empty() {
            return Ok(Saved { claim, bundle });
        }
        let upload = claim.begin_upload().await.map_err(git("it cannot be locked"))?;
        let Some(upload) = upload else { return Err(busy(standing)) };
        let name = uuid::Uuid::new_v4().simple().to_string();
        let stored = archive.save(order, &name, folders, self.git.redactor()).await;
        let stored = stored.map_err(Obstacle::Archive)?;
        let claim = match self.claim(found, standing, sweep).await {
            Ok(claim) => claim,
            Err(obstacle) => {
                // Its files may have changed while they were read.
                if let Some(stored) = &stored {
                    archive.forget(stored).await;
                }
                return Err(obstacle);
            }
        };
        self.note_archive(found, stored).await?;
        upload.end().await.map_err(git("its lock cannot be removed"))?;
        Ok(Saved { claim, bundle })
    }

    /// Saves what no commit can hold.
    async fn keep_left_out(
        &self,
        claim: &Claim,
        found: &FoundSandbox,
        folder: &Path,
    ) -> Result<(), Obstacle> {
        let order = &found.order;
        let kept = claim.save_left_out(folder).await;
        let kept = kept.map_err(|error| {
            Obstacle::Git("what no commit holds cannot be saved, so it stays", error)
        })?;
        let Some(kept) = kept else { return Ok(()) };
        let name = kept.path.file_name().unwrap_or_default().to_string_lossy();
        let saved = SavedWork {
            path: format!("{order}/bundles/{name}"),
            sha256: kept.sha256,
            size_bytes: i64::try_from(kept.size).unwrap_or(i64::MAX),
        };
        let form = SavedForm::LeftOut;
        let noted = self.store.add_saved(order, found.generation, form, &saved).await;
        noted.map_err(Obstacle::Store)
    }

    /// Notes that what only the agent has is in the archive.
    async fn note_archive(
        &self,
        found: &FoundSandbox,
        stored: Option<Stored>,
    ) -> Result<(), Obstacle> {
        let order = &found.order;
        let Some(stored) = stored else {
            info!(work_order.id = %order, "the sandbox is larger than AWO_ARCHIVE_MAX: not archived");
            return Ok(());
        };
        let size_bytes = i64::try_from(stored.size).unwrap_or(i64::MAX);
        let saved = SavedWork { path: stored.key, sha256: stored.sha256, size_bytes };
        let form = SavedForm::Archive;
        let noted = self.store.add_saved(order, found.generation, form, &saved).await;
        noted.map_err(Obstacle::Store)
    }
}
