//! Frees space on the volumes of this worker at once, whatever the schedules say.

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Maintenance, Urgency};

impl Maintenance {
    /// Removes what may go, leftovers first. It never fails: what one part cannot do the next may.
    pub async fn free_space(&self) {
        match self.git.tidy().await {
            Ok(tidied) => info!(
                trash = tidied.trash,
                clones = tidied.clones,
                damaged = tidied.damaged,
                busy = tidied.busy,
                "removed leftovers to free space"
            ),
            Err(error) => warn!("cannot remove leftovers to free space: {}", error.sentence()),
        }
        if let Err(error) = self.sweep(Urgency::Pressing, &CancellationToken::new()).await {
            warn!("cannot take sandboxes away to free space: {error}");
        }
    }
}
