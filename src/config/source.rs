//! Where settings come from, and which of several answers wins.
//!
//! The environment of the process is read here and nowhere else.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use secrecy::SecretString;

use super::{
    ConfigError, addresses,
    file::SettingsFile,
    keys::{self, Key},
};

/// How names begin that are ours, or that steer git, the loader and other programs.
const RESERVED: &[&str] = &[
    "AWO_",
    "ARCHON_",
    "AGENT_WORK_ORDER_",
    "CLAUDE_",
    "ANTHROPIC_",
    "GIT_",
    "GITHUB_",
    "GH_",
    "LD_",
    "OTEL_",
    "LOGFIRE_",
    "PG",
    "SUPABASE_",
    "DATABASE_",
];

/// Steers nothing but how the agent's own commands run, which is the administrator's choice.
const HARMLESS: &str = "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS";

/// Whether no repository may ask for a variable of this name.
pub fn is_reserved(name: &str) -> bool {
    if name == HARMLESS {
        return false;
    }
    keys::ALL.iter().any(|key| key.variables.contains(&name))
        || RESERVED.iter().any(|prefix| name.starts_with(prefix))
        || ["PATH", "HOME", "TMPDIR"].contains(&name)
}

/// Which layer a value came from; earlier ones win.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// An environment variable.
    Environment,
    /// A settings file.
    File(PathBuf),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("environment"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// What the host says, gathered once; tests make their own.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Environment variables.
    pub variables: BTreeMap<OsString, OsString>,
    /// Whether the process runs in a container, where data belongs on volumes.
    pub in_container: bool,
}

impl Host {
    /// The host this process runs on.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the environment"
    )]
    pub fn system() -> Self {
        let in_container = Path::new("/.dockerenv").exists()
            || Path::new("/run/.containerenv").exists()
            || std::env::var_os("AWO_CONTAINER").is_some_and(|value| value == "true");
        Self { variables: std::env::vars_os().collect(), in_container }
    }

    /// A host with these variables alone.
    pub fn with<N: Into<OsString>, V: Into<OsString>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self { variables: variables.collect(), in_container: false }
    }

    /// A variable that is set to something.
    pub(super) fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables.get(std::ffi::OsStr::new(name)).filter(|value| !value.is_empty())
    }

    /// The variables that may be handed to an agent when its repository is allowed to have them: none of
    /// our settings, nothing that steers programs behind the agent's back.
    pub(super) fn inheritable(&self) -> BTreeMap<String, String> {
        let text = |text: &OsString| text.to_str().map(str::to_owned);
        let pairs =
            self.variables.iter().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
        pairs.filter(|(name, _)| !is_reserved(name)).collect()
    }

    /// The home folder of the user.
    pub(super) fn home(&self) -> Option<PathBuf> {
        self.variable("HOME").map(PathBuf::from).filter(|home| home.is_absolute())
    }
}

/// One setting as `archon-awo config` shows it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Setting {
    /// The name people know it by: its first environment variable.
    pub name: &'static str,
    /// The value, masked when it is a credential; `None` when unset.
    pub value: Option<String>,
    /// Where it came from.
    pub source: Source,
    /// Whether it is a credential.
    pub secret: bool,
    /// What it does.
    pub help: &'static str,
}

/// Reads settings from the layers and remembers where each came from.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    host: &'a Host,
    files: Vec<SettingsFile>,
    settings: Vec<Setting>,
    /// Passwords inside addresses, with the setting they are from.
    embedded: Vec<(&'static str, SecretString)>,
}

/// A value as it was written, before it is understood.
#[derive(Debug)]
struct Written {
    text: String,
    /// The variable or file key it was written under.
    name: String,
    source: Source,
}

impl<'a> Reader<'a> {
    pub fn new(host: &'a Host, files: Vec<SettingsFile>) -> Self {
        Self { host, files, settings: Vec::new(), embedded: Vec::new() }
    }

    /// Adds a file that ranks before the ones known so far.
    pub fn add_file(&mut self, file: SettingsFile) {
        self.files.insert(0, file);
    }

    pub fn host(&self) -> &'a Host {
        self.host
    }

    /// The passwords inside the addresses that were read, with the settings they are from.
    pub fn take_embedded(&mut self) -> Vec<(&'static str, SecretString)> {
        std::mem::take(&mut self.embedded)
    }

    /// What was read, with sources.
    pub fn into_settings(self) -> Vec<Setting> {
        self.settings
    }

    fn written(&self, key: &Key) -> Result<Option<Written>, ConfigError> {
        for &variable in key.variables {
            if let Some(value) = self.host.variable(variable) {
                let text = value.to_str().ok_or_else(|| ConfigError::Invalid {
                    name: variable.to_owned(),
                    value: format!("{:?}", value.display()),
                    place: String::new(),
                    expected: "text in UTF-8".to_owned(),
                })?;
                let (text, name) = (text.trim().to_owned(), variable.to_owned());
                return Ok(Some(Written { text, name, source: Source::Environment }));
            }
        }
        for file in &self.files {
            if let Some(text) = file.value(key)? {
                let (name, source) = (key.file_name(), Source::File(file.path().to_owned()));
                return Ok(Some(Written { text, name, source }));
            }
        }
        let default = key.default.map(|text| Written {
            text: text.to_owned(),
            name: key.name().to_owned(),
            source: Source::Default,
        });
        Ok(default)
    }

    /// The value of `key`, or `None` when it is unset and has no default.
    ///
    /// `parse` answers with a reason when the value is of another form than `key.expected` says.
    pub fn optional<T>(
        &mut self,
        key: &'static Key,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let written = self.written(key)?;
        let (value, source) = match &written {
            Some(written) => (Some(shown(key, &written.text)), written.source.clone()),
            None => (None, Source::Default),
        };
        self.settings.push(Setting {
            name: key.name(),
            value,
            source,
            secret: key.secret,
            help: key.help,
        });
        let Some(written) = written else { return Ok(None) };
        let passwords = addresses::passwords(&written.text).into_iter();
        self.embedded.extend(passwords.map(|password| (key.name(), password)));
        match parse(&written.text) {
            Some(value) => Ok(Some(value)),
            None => Err(ConfigError::Invalid {
                value: format!("{:?}", shown(key, &written.text)),
                place: match &written.source {
                    Source::File(path) => format!(" in {}", path.display()),
                    Source::Environment | Source::Default => String::new(),
                },
                name: written.name,
                expected: key.expected.to_owned(),
            }),
        }
    }

    /// The value of a `key` that always has one; `fallback` is used where the default depends on
    /// the host.
    pub fn required<T>(
        &mut self,
        key: &'static Key,
        parse: impl FnOnce(&str) -> Option<T>,
        fallback: impl FnOnce() -> Option<(T, String)>,
    ) -> Result<T, ConfigError> {
        if let Some(value) = self.optional(key, parse)? {
            return Ok(value);
        }
        let (value, text) = fallback()
            .ok_or_else(|| ConfigError::Unset { name: key.name(), expected: key.expected })?;
        if let Some(setting) = self.settings.last_mut() {
            setting.value = Some(text);
        }
        Ok(value)
    }

    /// The value of a `key` that has a default in its definition.
    pub fn value<T>(
        &mut self,
        key: &'static Key,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        self.required(key, parse, || None)
    }
}

/// The value as it may be shown to people.
fn shown(key: &Key, text: &str) -> String {
    // An address stays useful without its password.
    let is_address = url::Url::parse(text).is_ok_and(|url| url.has_host());
    if key.secret && !is_address { mask(text) } else { addresses::masked(text) }
}

/// The first and last four characters of a long credential, nothing of a short one.
pub fn mask(secret: &str) -> String {
    let characters: Vec<char> = secret.chars().collect();
    if characters.len() < 16 {
        return "…".to_owned();
    }
    let head: String = characters[..4].iter().collect();
    let tail: String = characters[characters.len() - 4..].iter().collect();
    format!("{head}…{tail}")
}
