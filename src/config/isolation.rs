//! How far an agent is shut in.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::{ConfigError, FoldersConfig, keys, source::Reader, values};

/// Whether agents are shut in (`AWO_ISOLATION`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IsolationMode {
    /// As far as this kernel and this user can.
    Auto,
    /// Completely, or no agent starts.
    Required,
    /// Not at all.
    Off,
}

/// Where agents may connect to (`AWO_AGENT_NETWORK`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AgentNetwork {
    /// Anywhere.
    Open,
    /// Over TCP only to the port of `AWO_AGENT_PROXY`.
    Proxy,
}

/// A range of users (`AWO_AGENT_USERS`), and where is noted who has which.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AgentUsers {
    /// The number of the first.
    pub first: u32,
    /// The number of the last.
    pub last: u32,
    /// The folder with a file for each, on the volume that replicas share.
    pub notes: PathBuf,
}

impl AgentUsers {
    /// Reads `64000-64999`.
    fn parse(text: &str, notes: PathBuf) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // The last number stands for no user.
        (0 < first && first <= last && last < u32::MAX).then_some(Self { first, last, notes })
    }
}

/// What keeps agents from where the worker gets to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentsBounds {
    /// They have another user than the worker.
    pub other_user: bool,
    /// The only port they connect to.
    pub only_port: Option<u16>,
}

/// How far an agent is shut in, and what it may use up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsolationConfig {
    /// `AWO_ISOLATION`.
    pub mode: IsolationMode,
    /// `AWO_AGENT_READ_PATHS`: what agents may read and run besides the system's own folders.
    pub read_paths: Vec<PathBuf>,
    /// `AWO_AGENT_WRITE_PATHS`: what they may write besides their sandbox.
    pub write_paths: Vec<PathBuf>,
    /// Folders of the product that no other rule may open, however it is written.
    pub protected: Vec<PathBuf>,
    /// `AWO_AGENT_USER`: whom agents run as, when the worker is root.
    pub user: Option<String>,
    /// `AWO_AGENT_USERS`: users of which each run gets one of its own.
    pub users: Option<AgentUsers>,
    /// `AWO_AGENT_PROCESSES`: most processes and threads.
    pub processes: u32,
    /// `AWO_AGENT_MEMORY`: most memory of one agent and everything it starts, in bytes.
    pub memory: Option<u64>,
    /// `AWO_AGENT_OPEN_FILES`: most open files of one process.
    pub open_files: u64,
    /// `AWO_AGENT_FILE_SIZE`: largest file one process may write, in bytes.
    pub file_size: u64,
    /// `AWO_AGENT_PROXY`: the proxy agents are told to use.
    pub proxy: Option<String>,
    /// The port of that proxy, when it is the only one agents may connect to.
    pub only_port: Option<u16>,
    /// Whether agents find that proxy by its name: the worker tells them its number where it may.
    pub looks_up_proxy: bool,
}

impl Default for IsolationConfig {
    fn default() -> Self {
        Self {
            mode: IsolationMode::Auto,
            read_paths: Vec::new(),
            write_paths: Vec::new(),
            protected: Vec::new(),
            user: None,
            users: None,
            processes: 4096,
            memory: None,
            open_files: 65_536,
            file_size: 16 << 30,
            proxy: None,
            only_port: None,
            looks_up_proxy: false,
        }
    }
}

impl IsolationConfig {
    pub(super) fn read(reader: &mut Reader, folders: &FoldersConfig) -> Result<Self, ConfigError> {
        let home = reader.host().home();
        let mut protected =
            vec![folders.repositories.clone(), folders.work_orders.clone(), folders.config.clone()];
        protected.extend(home.as_ref().map(|home| home.join(".archon")));
        let paths = |text: &str| {
            let paths = values::paths(text, home.as_deref())?;
            let apart = |path: &PathBuf| protected.iter().all(|kept| !overlap(path, kept));
            paths.iter().all(apart).then_some(paths)
        };
        let read_paths = reader.optional(&keys::AGENT_READ_PATHS, paths)?.unwrap_or_default();
        let write_paths = reader.optional(&keys::AGENT_WRITE_PATHS, paths)?.unwrap_or_default();
        let proxy = reader.optional(&keys::AGENT_PROXY, |text| {
            values::web_address(text).filter(|url| url.port_or_known_default().is_some())
        })?;
        let network =
            reader.value(&keys::AGENT_NETWORK, |text| AgentNetwork::from_str(text, true).ok())?;
        let port = proxy.as_ref().and_then(url::Url::port_or_known_default);
        if network == AgentNetwork::Proxy && port.is_none() {
            return Err(ConfigError::Conflict {
                name: keys::AGENT_NETWORK.name(),
                value: "proxy".to_owned(),
                expected: "AWO_AGENT_PROXY to be set".to_owned(),
            });
        }
        let user = reader.optional(&keys::AGENT_USER, values::text)?;
        let notes = folders.repositories.join(".cache/agent-users");
        let users =
            reader.optional(&keys::AGENT_USERS, |text| AgentUsers::parse(text, notes.clone()))?;
        if let (Some(user), Some(_)) = (&user, &users) {
            return Err(ConfigError::Conflict {
                name: keys::AGENT_USER.name(),
                value: user.clone(),
                expected: "it to be unset where AWO_AGENT_USERS is set".to_owned(),
            });
        }
        Ok(Self {
            mode: reader
                .value(&keys::ISOLATION, |text| IsolationMode::from_str(text, true).ok())?,
            read_paths,
            write_paths,
            user,
            users,
            processes: reader.value(&keys::AGENT_PROCESSES, values::number(16..=4_194_304))?,
            memory: reader.optional(&keys::AGENT_MEMORY, values::size)?,
            open_files: reader.value(&keys::AGENT_OPEN_FILES, values::number(64..=1_048_576))?,
            file_size: reader.value(&keys::AGENT_FILE_SIZE, values::size)?,
            // Its certificate is for its name.
            looks_up_proxy: network == AgentNetwork::Proxy
                && proxy
                    .as_ref()
                    .is_some_and(|url| url.scheme() == "https" && url.domain().is_some()),
            proxy: proxy.map(|url| url.to_string().trim_end_matches('/').to_owned()),
            only_port: port.filter(|_| network == AgentNetwork::Proxy),
            protected,
        })
    }
}

impl IsolationConfig {
    /// Whether agents are told the number of the proxy: where they reach its port alone they cannot ask for
    /// its name.
    pub fn proxy_by_number(&self) -> bool {
        self.only_port.is_some() && !self.looks_up_proxy
    }
}

/// Whether one of the two holds the other.
fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}
