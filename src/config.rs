//! The settings of the process, read once from environment, files and defaults, in that order.
//!
//! Nothing else reads the environment, so a test gives a [`Host`] of its own and two workers in one
//! process can differ. A setting that cannot be understood stops the start: a worker that runs with
//! another lease or another folder than was asked for does more harm than one that does not run.

mod addresses;
mod agent;
mod archive;
mod cache;
mod check;
mod credentials;
mod database;
mod disk;
mod file;
mod folders;
mod history;
mod http;
mod isolation;
pub mod keys;
mod ports;
mod queue;
mod remotes;
mod retention;
mod source;
mod telemetry;
mod values;

pub use values::duration as parse_duration;

use std::{collections::BTreeSet, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};

pub use addresses::masked as without_passwords;
pub use agent::{AgentConfig, AgentKind, ClaudeConfig, Freezer};
pub use archive::ArchiveConfig;
pub use cache::CacheConfig;
pub use check::{NotRunnable, Problem, check_runnable, find_program};
pub(crate) use check::{
    check_agent, check_ca_file, check_commands, check_folder, freezer_problem, isolation_problem,
};
pub use database::DatabaseConfig;
pub use disk::DiskConfig;
pub use folders::{FoldersConfig, SET_ASIDE};
pub use history::HistoryConfig;
pub use http::HttpConfig;
pub use isolation::{AgentNetwork, AgentUsers, AgentsBounds, IsolationConfig, IsolationMode};
pub use queue::QueueConfig;
pub use remotes::{GitConfig, GithubConfig};
pub use retention::{RetentionConfig, RetentionPolicy};
pub use source::is_reserved;
pub use source::{Host, Setting, Source, mask};
pub use telemetry::{LogFormat, OtlpProtocol, TelemetryConfig};

use crate::{
    domain::{Credentials, RemoteRules, is_weak_secret},
    local_remotes::LocalRemotes,
    ports::PortPool,
};
use file::{Ownership, SettingsFile};
use source::Reader;

/// Everything that can be set, one part per concern.
#[derive(Debug, Clone)]
pub struct Config {
    /// How Postgres is reached.
    pub database: DatabaseConfig,
    /// Where data lies.
    pub folders: FoldersConfig,
    /// What is taken from the queue, and when.
    pub queue: QueueConfig,
    /// How long history is kept.
    pub history: HistoryConfig,
    /// How much the caches may keep.
    pub cache: CacheConfig,
    /// Where sandboxes are archived; `None` when they are not.
    pub archive: Option<ArchiveConfig>,
    /// How long sandboxes are kept.
    pub retention: RetentionConfig,
    /// Who does the work of a step.
    pub agent: AgentConfig,
    /// What must stay free on the volumes.
    pub disk: DiskConfig,
    /// The ports that running orders get; `None` when they get none.
    pub ports: Option<PortPool>,
    /// Which repositories may be named.
    pub remotes: RemoteRules,
    /// Which folders may be remotes.
    pub local_remotes: LocalRemotes,
    /// GitHub's API and token.
    pub github: GithubConfig,
    /// Identity and trust of git.
    pub git: GitConfig,
    /// What opens the hosts of git, GitHub's token among it.
    pub credentials: Credentials,
    /// The HTTP server.
    pub http: HttpConfig,
    /// Logs, traces and metrics.
    pub telemetry: TelemetryConfig,
    /// `PATH` of this process, in which programs are looked up and which children get.
    pub search_path: String,
    /// `HOME` of this process.
    pub home: Option<PathBuf>,
    /// The caller's W3C trace context (`TRACEPARENT`), which an enqueued order continues.
    pub traceparent: Option<String>,
    /// Sentences for the log at start: settings that were understood but not obeyed.
    pub warnings: Vec<String>,
    settings: Vec<Setting>,
    unused_secrets: Vec<SecretString>,
    embedded: Vec<(&'static str, SecretString)>,
}

/// A setting that stops the start. One line each, naming what was set, to what, and what is expected.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value of another form. Credentials are masked.
    #[error("{name} is {value}{place}: expected {expected}")]
    Invalid {
        /// The variable, or the key in a file.
        name: String,
        /// The value, quoted.
        value: String,
        /// ` in <file>` for a file, else empty.
        place: String,
        /// What a valid value looks like.
        expected: String,
    },
    /// A value that does not fit another one.
    #[error("{name} is {value}: expected {expected}")]
    Conflict {
        /// The variable.
        name: &'static str,
        /// The value.
        value: String,
        /// What would fit, naming the other setting and its value.
        expected: String,
    },
    /// A value without which nothing works.
    #[error("{name} is not set: expected {expected}")]
    Unset {
        /// The variable.
        name: &'static str,
        /// What a valid value looks like.
        expected: &'static str,
    },
    /// A file that exists and cannot be read.
    #[error("cannot read the settings file {}: {source}", file.display())]
    FileUnreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is not flat YAML.
    #[error("the settings file {} {problem}", file.display())]
    FileForm {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, to follow its name.
        problem: String,
    },
    /// A key nobody reads.
    #[error("{key} in {} is not a setting: did you mean {nearest}?", file.display())]
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// The known key spelled most like it.
        nearest: String,
    },
    /// A file of git credentials that cannot be used. Nothing of its content is repeated.
    #[error("the file of git credentials {} {problem}", file.display())]
    Credentials {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, to follow its name.
        problem: String,
    },
    /// A credential others can read.
    #[error("{key} is in {}, which other users can read: run `chmod 600` on the file", file.display())]
    FileOpenToOthers {
        /// The file.
        file: PathBuf,
        /// The credential's key.
        key: String,
    },
}

impl Config {
    /// Reads everything. The first invalid setting is the error.
    pub fn load(host: &Host) -> Result<Self, ConfigError> {
        let mut warnings = Vec::new();
        let mut unused_secrets = Vec::new();
        let home = host.home();

        let mut files = Vec::new();
        if let Some(home) = &home {
            let path = home.join(".archon/config.yaml");
            files.extend(SettingsFile::read(&path, Ownership::Shared)?);
        }
        let mut reader = Reader::new(host, files);
        let config = folders::config_folder(&mut reader)?;
        let path = config.join("agent-settings.yaml");
        if let Some(file) = SettingsFile::read(&path, Ownership::Ours)? {
            // The folder was chosen before this file was known, so the file cannot choose it.
            file.refuse(&keys::CONFIG_DIR)?;
            reader.add_file(file);
        }

        let folders = FoldersConfig::read(&mut reader, config)?;
        let database = DatabaseConfig::read(&mut reader)?;
        let queue = QueueConfig::read(&mut reader)?;
        let history = HistoryConfig::read(&mut reader)?;
        let archive = ArchiveConfig::read(&mut reader)?;
        let cache = CacheConfig::read(&mut reader)?;
        let retention = RetentionConfig::read(&mut reader)?;
        let agent = AgentConfig::read(&mut reader, &folders, &mut warnings, &mut unused_secrets)?;
        let disk = DiskConfig::read(&mut reader)?;
        let ports = ports::read(&mut reader, queue.max_concurrent)?;
        let written = &agent.isolation.write_paths;
        let (remotes, local_remotes) =
            remotes::rules(&mut reader, &folders, written, &mut warnings)?;
        let github = GithubConfig::read(&mut reader)?;
        let git = GitConfig::read(&mut reader)?;
        let credentials = credentials::read(&mut reader, &folders.config, &github)?;
        let http = HttpConfig::read(&mut reader)?;
        let telemetry = TelemetryConfig::read(&mut reader)?;
        let text = |name| host.variable(name).and_then(|value| value.to_str()).map(str::to_owned);
        Ok(Self {
            database,
            folders,
            queue,
            history,
            archive,
            cache,
            retention,
            agent,
            disk,
            ports,
            remotes,
            local_remotes,
            github,
            git,
            credentials,
            http,
            telemetry,
            search_path: text("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".to_owned()),
            home,
            traceparent: text("TRACEPARENT"),
            warnings,
            embedded: reader.take_embedded(),
            settings: reader.into_settings(),
            unused_secrets,
        })
    }

    /// Every setting with its value (credentials masked) and where it came from.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// Every credential of the process, for the redactor: also those that were set but are not
    /// used, and the passwords inside addresses.
    pub fn secrets(&self) -> Vec<SecretString> {
        self.named_secrets().into_iter().map(|(_, secret)| secret).collect()
    }

    /// What to say about credentials that are words, if there are any: such are not searched for.
    pub fn weak_secrets(&self) -> Option<String> {
        let secrets = self.named_secrets();
        let weak = secrets.iter().filter(|(_, secret)| is_weak_secret(secret.expose_secret()));
        let names: BTreeSet<&str> = weak.map(|(name, _)| name.as_str()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        (!names.is_empty()).then(|| {
            format!(
                "{}: the credential is short or a common word, so it is not taken out of texts, logs \
                 and commits, where it may be just that word; use a longer one that was generated",
                names.join(", ")
            )
        })
    }

    /// Every credential, with the name of the setting it is from.
    fn named_secrets(&self) -> Vec<(String, SecretString)> {
        let claude = &self.agent.claude;
        let named = |key: &keys::Key, secret: SecretString| (key.name().to_owned(), secret);
        let mut secrets: Vec<(String, SecretString)> = Vec::new();
        let optional = [
            (&keys::ANTHROPIC_API_KEY, &claude.api_key),
            (&keys::CLAUDE_OAUTH_TOKEN, &claude.oauth_token),
            (&keys::GITHUB_TOKEN, &self.github.token),
        ];
        for (key, secret) in optional {
            secrets.extend(secret.clone().map(|secret| named(key, secret)));
        }
        secrets.extend(self.agent.credentials.iter().cloned());
        let unused = self.unused_secrets.iter().cloned();
        secrets.extend(unused.map(|secret| named(&keys::ANTHROPIC_API_KEY, secret)));
        let archive = self.archive.iter().filter_map(ArchiveConfig::secret);
        secrets.extend(archive.map(|secret| named(&keys::ARCHIVE_SECRET_ACCESS_KEY, secret)));
        if let Some(url) = &self.database.url {
            // The one of a file is put into it.
            let passwords = addresses::passwords(url.expose_secret()).into_iter();
            secrets.extend(passwords.map(|secret| named(&keys::DATABASE_URL, secret)));
        }
        let embedded = self.embedded.iter().cloned();
        secrets.extend(embedded.map(|(name, secret)| (name.to_owned(), secret)));
        let headers = self.telemetry.headers.iter().map(|(_, value)| value.clone());
        secrets.extend(headers.map(|secret| named(&keys::OTLP_HEADERS, secret)));
        let known: Vec<_> = secrets.iter().map(|(_, s)| s.expose_secret().to_owned()).collect();
        // GitHub's token is among them.
        let others = self.credentials.secrets().filter(|secret| {
            let value = secret.expose_secret();
            !known.iter().any(|known| known == value)
        });
        let others: Vec<SecretString> = others.cloned().collect();
        secrets.extend(others.into_iter().map(|secret| named(&keys::GIT_CREDENTIALS, secret)));
        let mut seen = BTreeSet::new();
        secrets.retain(|(_, secret)| {
            let value = secret.expose_secret();
            !value.is_empty() && seen.insert(value.to_owned())
        });
        secrets
    }
}
