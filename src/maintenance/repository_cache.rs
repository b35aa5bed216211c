//! Removes leftovers from the repository volume of the host this runs on, and keeps its caches small.

use tracing::info;

use super::{Maintenance, Stopped};

impl Maintenance {
    pub(super) async fn repository_cache(&self) -> Result<(), Stopped> {
        let tidied = self.git.tidy().await.map_err(|error| Stopped::Volume(error.to_string()))?;
        info!(
            trash = tidied.trash,
            clones = tidied.clones,
            damaged = tidied.damaged,
            busy = tidied.busy,
            "tidied the repository volume"
        );
        let cache = self.git.maintain_cache(self.cache).await;
        let cache = cache.map_err(|error| Stopped::Volume(error.sentence()))?;
        info!(
            repacked = cache.repacked,
            evicted = cache.evicted,
            evicted_bytes = cache.evicted_bytes,
            borrowed = cache.borrowed,
            busy = cache.busy,
            bytes = cache.bytes,
            "looked after the repository caches"
        );
        Ok(())
    }
}
