//! The files kept of an order under `AWO_WORK_ORDER_DIR/{id}`: prompts, outputs, `metadata.json`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::fs;

use super::failure::{StepError, volume};
use crate::{
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
}

impl Dossier {
    /// Makes the folders.
    pub async fn open(work_orders: &Path, order: &WorkOrderId) -> Result<Self, StepError> {
        let root = work_orders.join(order.as_str());
        for folder in ["prompts", "outputs"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).await.map_err(|error| volume(&path, &error))?;
        }
        Ok(Self { root, order: order.clone() })
    }

    /// Where the raw output of a run of an agent goes.
    pub fn spool(&self, name: &str) -> PathBuf {
        self.root.join("outputs").join(format!("{name}.ndjson"))
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
        write_whole(&path, text.as_bytes()).await?;
        let inline = text.len() <= INLINE_LIMIT && !text.contains('\0');
        Ok(NewArtifact {
            kind,
            step,
            content: inline.then(|| text.to_owned()),
            path: Some(format!("{}/{folder}/{name}", self.order)),
            sha256: hex(&Sha256::digest(text.as_bytes())),
            size_bytes: i64::try_from(text.len()).unwrap_or(i64::MAX),
        })
    }

    /// Replaces `metadata.json`.
    pub async fn describe(&self, facts: &Value) -> Result<(), StepError> {
        let text = format!("{facts:#}\n");
        write_whole(&self.root.join("metadata.json"), text.as_bytes()).await
    }
}

/// Writes a file so that readers see the old or the new content, never a part.
async fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), StepError> {
    let mut staged = path.as_os_str().to_owned();
    staged.push(".part");
    let staged = PathBuf::from(staged);
    let write = async {
        fs::write(&staged, bytes).await?;
        fs::rename(&staged, path).await
    };
    write.await.map_err(|error| volume(path, &error))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
