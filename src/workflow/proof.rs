//! Proves how an attempt ends, with a time in the database for each stage: its worker has heard of a
//! cancel, no process of its agents is left, its sandbox is free. Without it "cancelled" is a claim.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{
    clock::Clock,
    domain::WorkOrderId,
    git::Git,
    lease::Lease,
    store::{RunError, RunStore, Stages},
};

/// How long a sandbox may take to be let go of after the last process has ended.
const RELEASE: Duration = Duration::from_secs(5);
/// How often a sandbox that is still held is looked at again.
const LOOK: Duration = Duration::from_millis(50);

/// The proof of one attempt.
pub struct Proof {
    store: RunStore,
    cancel: CancellationToken,
    hearing: JoinHandle<()>,
    /// Processes of an agent could not be shown to be gone.
    survivors: bool,
}

impl Proof {
    /// Begins with an attempt; from now on a cancel is acknowledged as soon as it is heard.
    pub fn begin(store: RunStore, lease: &Lease) -> Self {
        let cancel = lease.cancel_token();
        let (heard, writer) = (cancel.clone(), store.clone());
        let hearing = tokio::spawn(async move {
            heard.cancelled().await;
            report(writer.note_stages(Stages { cancel_heard: true, ..Stages::default() }).await);
        });
        Self { store, cancel, hearing, survivors: false }
    }

    /// An agent has ended; `tree_empty` when no process of it is left.
    pub async fn agent_ended(&mut self, tree_empty: bool) {
        self.survivors |= !tree_empty;
        self.stopped().await;
    }

    /// The attempt does nothing more. After a cancel that is noted at once: what is still to be recorded
    /// may take its time.
    pub async fn stopped(&self) {
        if self.cancel.is_cancelled() && !self.survivors {
            report(self.store.note_stages(self.stages(false)).await);
        }
    }

    /// The attempt has ended, and its worker has let go of everything.
    pub async fn end(self, git: &Git, order: &WorkOrderId, clock: &Clock) {
        if self.survivors {
            error!(work_order.id = %order, "processes of an agent may be left");
            return;
        }
        let released = is_released(git, order, clock).await;
        report(self.store.note_stages(self.stages(released)).await);
    }

    fn stages(&self, released: bool) -> Stages {
        Stages { cancel_heard: self.cancel.is_cancelled(), tree_empty: true, released }
    }
}

impl Drop for Proof {
    fn drop(&mut self) {
        self.hearing.abort();
    }
}

async fn is_released(git: &Git, order: &WorkOrderId, clock: &Clock) -> bool {
    let began = clock.now();
    loop {
        match git.sandbox_is_free(order).await {
            Ok(true) => return true,
            Ok(false) if clock.now() - began < RELEASE => clock.sleep(LOOK).await,
            Ok(false) => {
                error!(work_order.id = %order, "the sandbox is still held by somebody");
                return false;
            }
            Err(error) => {
                warn!(work_order.id = %order, "cannot see whether the sandbox is free: {error}");
                return false;
            }
        }
    }
}

fn report(noted: Result<(), RunError>) {
    match noted {
        // Whoever has the lease now proves its own end.
        Ok(()) | Err(RunError::Stale(_)) => {}
        Err(RunError::Store(error)) => warn!("a stage of the end was not noted: {error}"),
    }
}
