//! Has this worker look for dead ones whatever its heartbeats show, and reports what needs a person.

use tracing::{error, warn};

use super::{Maintenance, Stopped};

impl Maintenance {
    pub(super) async fn rescue_check(&self) -> Result<(), Stopped> {
        // The rescue of this worker does the work and reports it, with all the care it takes.
        self.keeper.rescue_now();
        let stuck = self.store.stuck().await?;
        for trouble in &stuck {
            warn!(
                subject = trouble.subject,
                seconds = trouble.seconds,
                "stuck: {}",
                trouble.problem
            );
        }
        let broken = self.store.broken_promises().await?;
        for trouble in &broken {
            error!(subject = trouble.subject, "broken promise: {}", trouble.problem);
        }
        self.store.note_check("broken_promises", broken.len()).await?;
        Ok(())
    }
}
