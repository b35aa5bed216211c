//! What a run keeps of what its agent made and said: artifacts, and pieces of the log.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{RunError, RunStore};
use crate::{
    domain::{StepName, WorkOrderId},
    sql,
};

/// Something worth keeping.
#[derive(Debug, Clone)]
pub struct NewArtifact {
    /// `prompt`, `output`, `log`, `diff`, `plan` or `review`.
    pub kind: &'static str,
    /// The step it came from.
    pub step: StepName,
    /// The text, unless it is large.
    pub content: Option<String>,
    /// Where it is below `AWO_WORK_ORDER_DIR`.
    pub path: Option<String>,
    /// Checksum of the text, in hex.
    pub sha256: String,
    /// Its size.
    pub size_bytes: i64,
}

/// One piece of the log.
#[derive(Debug, Clone)]
pub struct NewLogChunk {
    /// The step it belongs to.
    pub step: Option<StepName>,
    /// The run of the agent it came from.
    pub run_id: Option<Uuid>,
    /// `stdout`, `stderr` or `event`.
    pub stream: &'static str,
    /// Where it begins in the spool of the run.
    pub file_offset: Option<i64>,
    /// How many line ends it holds.
    pub line_count: i32,
    /// Bytes, secrets removed.
    pub data: Vec<u8>,
}

impl NewArtifact {
    /// A text that only the database keeps. NUL, which it cannot hold, is replaced.
    pub fn without_file(kind: &'static str, step: StepName, text: &str) -> Self {
        let digest = Sha256::digest(text.as_bytes());
        let sha256 = digest.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        });
        Self {
            kind,
            step,
            content: Some(text.replace('\0', "\u{fffd}")),
            path: None,
            sha256,
            size_bytes: i64::try_from(text.len()).unwrap_or(i64::MAX),
        }
    }
}

impl RunStore {
    /// Keeps an artifact; one that is there already is kept once, for the reply to an earlier call may
    /// have been lost.
    #[tracing::instrument(name = "db.artifacts.add", skip_all, err)]
    pub async fn add_artifact(
        &self,
        order: &WorkOrderId,
        artifact: &NewArtifact,
    ) -> Result<(), RunError> {
        let owned: bool = self
            .patiently("run/add_artifact", || {
                sqlx::query_scalar(sql!("run/add_artifact"))
                    .bind(self.fence().job_id)
                    .bind(self.fence().epoch)
                    .bind(order.as_str())
                    .bind(artifact.kind)
                    .bind(artifact.step.as_str())
                    .bind(&artifact.content)
                    .bind(&artifact.path)
                    .bind(&artifact.sha256)
                    .bind(artifact.size_bytes)
                    .fetch_one(self.pool())
            })
            .await?;
        self.owned(u64::from(owned))
    }

    /// Appends to the log of the order.
    #[tracing::instrument(name = "db.log_chunks.append", level = "debug", skip_all, err)]
    pub async fn append_log(
        &self,
        order: &WorkOrderId,
        chunks: &[NewLogChunk],
    ) -> Result<(), RunError> {
        let steps: Vec<Option<&str>> =
            chunks.iter().map(|chunk| chunk.step.map(StepName::as_str)).collect();
        let runs: Vec<Option<Uuid>> = chunks.iter().map(|chunk| chunk.run_id).collect();
        let streams: Vec<&str> = chunks.iter().map(|chunk| chunk.stream).collect();
        let offsets: Vec<Option<i64>> = chunks.iter().map(|chunk| chunk.file_offset).collect();
        let lines: Vec<i32> = chunks.iter().map(|chunk| chunk.line_count).collect();
        let data: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.data.as_slice()).collect();
        let owned: bool = self
            .patiently("run/append_log", || {
                sqlx::query_scalar(sql!("run/append_log"))
                    .bind(self.fence().job_id)
                    .bind(self.fence().epoch)
                    .bind(order.as_str())
                    .bind(&steps)
                    .bind(&runs)
                    .bind(&streams)
                    .bind(&offsets)
                    .bind(&lines)
                    .bind(&data)
                    .fetch_one(self.pool())
            })
            .await?;
        self.owned(u64::from(owned))
    }
}
