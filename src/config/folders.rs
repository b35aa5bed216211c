//! Where data lies.

use std::path::PathBuf;

use super::{
    ConfigError,
    keys::{self, Key},
    source::Reader,
    values,
};

/// Where the files of deleted orders lie whose id was used again, below `AWO_WORK_ORDER_DIR`.
pub const SET_ASIDE: &str = ".set-aside";

/// The three folders that outlive a worker; volumes in a container.
#[derive(Debug, Clone)]
pub struct FoldersConfig {
    /// `AWO_REPOSITORY_DIR`: repository caches and sandboxes.
    pub repositories: PathBuf,
    /// `AWO_WORK_ORDER_DIR`: prompts and outputs of every order.
    pub work_orders: PathBuf,
    /// `AWO_CONFIG_DIR`: `agent-settings.yaml` and the agents' own configuration.
    pub config: PathBuf,
}

impl FoldersConfig {
    pub(super) fn read(reader: &mut Reader, config: PathBuf) -> Result<Self, ConfigError> {
        Ok(Self {
            repositories: folder(reader, &keys::REPOSITORY_DIR, "repositories")?,
            work_orders: folder(reader, &keys::WORK_ORDER_DIR, "work-orders")?,
            config,
        })
    }
}

/// Read before the others: it says where the settings file is.
pub(super) fn config_folder(reader: &mut Reader) -> Result<PathBuf, ConfigError> {
    folder(reader, &keys::CONFIG_DIR, "config")
}

fn folder(reader: &mut Reader, key: &'static Key, name: &str) -> Result<PathBuf, ConfigError> {
    let home = reader.host().home();
    let in_container = reader.host().in_container;
    let parse = |text: &str| values::path(text, home.as_deref());
    reader.required(key, parse, || {
        let base = if in_container {
            PathBuf::from("/var/archon")
        } else {
            home.as_ref()?.join(".archon")
        };
        let path = base.join(name);
        Some((path.clone(), path.display().to_string()))
    })
}
