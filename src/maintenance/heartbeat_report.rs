//! Reports which workers live, and forgets those that are long gone.

use tracing::{info, warn};

use super::{Maintenance, Stopped};

impl Maintenance {
    pub(super) async fn heartbeat_report(&self) -> Result<(), Stopped> {
        for worker in self.store.dead_workers().await? {
            warn!(
                worker.id = %worker.worker_id,
                host = worker.hostname,
                pid = worker.pid,
                running = worker.running,
                silent_seconds = worker.silent_seconds,
                "a worker is silent and has not said farewell"
            );
        }
        let (marked, forgotten) = self.store.forget_workers().await?;
        let counts = self.store.worker_counts().await?;
        info!(
            alive = counts.alive,
            draining = counts.draining,
            dead = counts.dead,
            taken_for_stopped = marked,
            forgotten,
            "workers"
        );
        Ok(())
    }
}
