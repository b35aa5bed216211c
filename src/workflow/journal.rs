//! The log of an order on its way into the database, in order and in batches.
//!
//! One task per run writes it: the database may be slow or away without holding up the agent,
//! whose output waits in its spool meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use serde_json::{Map, Value, json};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;
use uuid::Uuid;

use crate::{
    agent::{OutputChunk, OutputStream},
    domain::{Redactor, StepName, WorkOrderId, for_json},
    store::{NewLogChunk, RunError, RunStore},
};

/// Entries that may wait before the sender has to.
const BACKLOG: usize = 256;
/// Entries stored in one statement.
const BATCH: usize = 64;
/// Longest time an entry waits for company.
const LINGER: Duration = Duration::from_millis(250);

/// Where entries go in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    sender: mpsc::Sender<NewLogChunk>,
    redactor: Redactor,
    /// Marks the events of this journal, with their number: stored again after a lost reply they
    /// are known, as output is by its run and its place.
    id: Uuid,
    events: Arc<AtomicI64>,
}

/// The task behind a [`Journal`]; it ends when this is dropped.
#[derive(Debug)]
pub struct JournalWriter {
    task: AbortOnDropHandle<()>,
}

impl Journal {
    /// Starts writing the log of `order`.
    pub fn open(store: RunStore, order: WorkOrderId, redactor: Redactor) -> (Self, JournalWriter) {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let task = AbortOnDropHandle::new(tokio::spawn(write(store, order, receiver)));
        let (id, events) = (Uuid::new_v4(), Arc::default());
        (Self { sender, redactor, id, events }, JournalWriter { task })
    }

    /// Logs that something happened. `fields` become members of the entry.
    pub async fn event(&self, level: &str, event: &str, step: Option<StepName>, fields: Value) {
        let mut entry = Map::new();
        entry.insert("level".into(), json!(level));
        entry.insert("event".into(), json!(event));
        if let Some(step) = step {
            entry.insert("step".into(), json!(step.as_str()));
        }
        if let Value::Object(fields) = fields {
            entry.extend(fields);
        }
        let text = self.redactor.value(Value::Object(entry)).to_string();
        let mut data = for_json(&text).into_bytes();
        data.push(b'\n');
        self.send(NewLogChunk {
            step,
            run_id: Some(self.id),
            stream: "event",
            file_offset: Some(self.events.fetch_add(1, Ordering::Relaxed)),
            line_count: 1,
            data,
        })
        .await;
    }

    /// Logs what an agent wrote.
    pub async fn output(&self, step: StepName, run_id: Uuid, chunk: OutputChunk) {
        self.send(NewLogChunk {
            step: Some(step),
            run_id: Some(run_id),
            stream: match chunk.stream {
                OutputStream::Stdout => "stdout",
                OutputStream::Stderr => "stderr",
            },
            file_offset: i64::try_from(chunk.offset).ok(),
            line_count: i32::try_from(chunk.lines).unwrap_or(i32::MAX),
            data: chunk.data,
        })
        .await;
    }

    async fn send(&self, chunk: NewLogChunk) {
        // The writer ends early only when the lease is lost; then nothing more may be written.
        let _ = self.sender.send(chunk).await;
    }
}

impl JournalWriter {
    /// Waits until everything is stored or the lease is lost, as every write of a run does. Every
    /// [`Journal`] must have been dropped.
    pub async fn finish(self) {
        if let Err(error) = self.task.await {
            warn!("the log of the order is incomplete: {error}");
        }
    }
}

async fn write(store: RunStore, order: WorkOrderId, mut receiver: mpsc::Receiver<NewLogChunk>) {
    let mut batch = Vec::with_capacity(BATCH);
    while receiver.recv_many(&mut batch, BATCH).await > 0 {
        // More may come within the moment: fewer and larger statements.
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            match timeout(LINGER, receiver.recv_many(&mut batch, room)).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        match store.append_log(&order, &batch).await {
            Ok(()) => {}
            Err(RunError::Stale(_)) => return,
            Err(RunError::Store(error)) => warn!("part of the log of the order was lost: {error}"),
        }
        batch.clear();
    }
}
