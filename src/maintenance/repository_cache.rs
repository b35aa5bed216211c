//! Removes leftovers from the repository volume of the host this runs on.

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
        Ok(())
    }
}
