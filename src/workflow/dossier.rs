//! The files kept of an order under `AWO_WORK_ORDER_DIR/{id}`: prompts, outputs, `metadata.json`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::fs;

use super::failure::{StepError, volume};
use crate::{
    disk::{Reserve, write_whole},
    domain::{StepName, WorkOrderId},
    store::NewArtifact,
};

/// Longest text that is stored in the database beside its file, in bytes.
const INLINE_LIMIT: usize = 256 * 1024;

/// The folder of one order.
#[derive(Debug, Clone)]
pub struct Dossier {
    root: PathBuf,
    order: WorkOrderId,
    reserve: Reserve,
}

impl Dossier {
    /// Makes the folders.
    pub async fn open(work_orders: &Path, order: &WorkOrderId) -> Result<Self, StepError> {
        let root = work_orders.join(order.as_str());
        for folder in ["prompts", "outputs"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).await.map_err(|error| volume(&path, &error))?;
        }
        Ok(Self { root, order: order.clone(), reserve: Reserve::on(work_orders) })
    }

    /// That of an order which somebody else worked on, if it is there at all.
    pub fn existing(work_orders: &Path, order: &WorkOrderId) -> Self {
        let root = work_orders.join(order.as_str());
        Self { root, order: order.clone(), reserve: Reserve::on(work_orders) }
    }

    /// Where the raw output of a run of an agent goes.
    pub fn spool(&self, name: &str) -> PathBuf {
        self.root.join("outputs").join(format!("{name}.ndjson"))
    }

    /// The file of an output by its name; nothing when that is the name of something else.
    pub fn output(&self, name: &str) -> Option<PathBuf> {
        let is_name = Path::new(name).file_name().is_some_and(|plain| plain == name);
        is_name.then(|| self.root.join("outputs").join(name))
    }

    /// Writes a text into `folder` and describes it as an artifact.
    pub async fn keep(
        &self,
        folder: &str,
        name: &str,
        kind: &'static str,
        step: StepName,
        text: &str,
    ) -> Result<NewArtifact, StepError> {
        let path = self.root.join(folder).join(name);
        self.write(&path, text).await?;
        let inline = text.len() <= INLINE_LIMIT && !text.contains('\0');
        let artifact = NewArtifact::without_file(kind, step, text);
        Ok(NewArtifact {
            content: artifact.content.filter(|_| inline),
            path: Some(format!("{}/{folder}/{name}", self.order)),
            ..artifact
        })
    }

    /// Notes something for a run that resumes the order.
    pub async fn remember(&self, name: &str, text: &str) -> Result<(), StepError> {
        self.write(&self.root.join(name), text).await
    }

    /// What was noted, as far as it can be read.
    pub async fn recall(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.root.join(name)).await.ok()
    }

    /// Replaces `metadata.json`.
    pub async fn describe(&self, facts: &Value) -> Result<(), StepError> {
        let text = format!("{facts:#}\n");
        self.write(&self.root.join("metadata.json"), &text).await
    }

    async fn write(&self, path: &Path, text: &str) -> Result<(), StepError> {
        let written = write_whole(path, text.as_bytes(), &self.reserve).await;
        written.map_err(|error| volume(path, &error))
    }
}
