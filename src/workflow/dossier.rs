//! The files kept of an order under `AWO_WORK_ORDER_DIR/{id}`: prompts, outputs, `metadata.json`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::fs;

use super::failure::{StepError, volume};
use crate::{
    disk::{self, Reserve},
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
        write_whole(&path, text.as_bytes(), &self.reserve).await?;
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

    /// Notes something for a run that resumes the order.
    pub async fn remember(&self, name: &str, text: &str) -> Result<(), StepError> {
        write_whole(&self.root.join(name), text.as_bytes(), &self.reserve).await
    }

    /// What was noted, as far as it can be read.
    pub async fn recall(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.root.join(name)).await.ok()
    }

    /// Replaces `metadata.json`.
    pub async fn describe(&self, facts: &Value) -> Result<(), StepError> {
        let text = format!("{facts:#}\n");
        write_whole(&self.root.join("metadata.json"), text.as_bytes(), &self.reserve).await
    }
}

/// Writes a file so that readers see the old or the new content, never a part.
async fn write_whole(path: &Path, bytes: &[u8], reserve: &Reserve) -> Result<(), StepError> {
    let mut staged = path.as_os_str().to_owned();
    staged.push(".part");
    let staged = PathBuf::from(staged);
    let write = async || {
        fs::write(&staged, bytes).await?;
        fs::rename(&staged, path).await
    };
    let mut written = write().await;
    if written.as_ref().is_err_and(disk::is_full) && reserve.release() {
        // What ends a run is worth more than the reserve, which is there for it.
        written = write().await;
    }
    if let Err(error) = written {
        // A part of a file helps nobody, and takes the space that is missing.
        let _ = fs::remove_file(&staged).await;
        return Err(volume(path, &error));
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
