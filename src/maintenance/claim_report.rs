//! Tells the database while this worker is alive and claims nothing, and why: people see it where they look
//! for the reason why an order waits.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::DiskWatch;
use crate::{clock::Clock, disk::Level, store::Store};

/// Between two tries to store it.
const PAUSE: Duration = Duration::from_secs(5);

/// Follows the volumes of a worker until `stop`.
pub async fn run(
    disk: Arc<DiskWatch>,
    store: Store,
    worker_id: Uuid,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut state = disk.state();
    // A row is written without a reason.
    let mut told = None;
    while !stop.is_cancelled() {
        let reason = (state.borrow_and_update().level() != Level::Ample).then_some("disk");
        if reason != told {
            match store.note_claims_nothing(worker_id, reason).await {
                Ok(()) => told = reason,
                Err(error) => {
                    warn!("cannot record why this worker claims nothing: {error}");
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = clock.sleep(PAUSE) => {}
                    }
                    continue;
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}
