//! Who does the work of a step.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use secrecy::SecretString;

use super::{
    ConfigError, FoldersConfig, IsolationConfig, is_reserved, keys, source::Reader, values,
};

/// Which program is the agent (`AWO_AGENT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AgentKind {
    /// The Claude Code CLI.
    Claude,
    /// Any program: prompt on standard input, answer on standard output.
    Command,
    /// OpenAI's Codex CLI.
    Codex,
    /// Google's Gemini CLI.
    Gemini,
    /// opencode.
    #[value(name = "opencode")]
    OpenCode,
}

impl AgentKind {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Command => "command",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
            Self::OpenCode => "opencode",
        }
    }

    /// Whether it is a CLI with the settings `AWO_AGENT_PROGRAM`, `AWO_AGENT_MODEL` and
    /// `AWO_AGENT_ARGUMENTS`.
    const fn is_preset(self) -> bool {
        matches!(self, Self::Codex | Self::Gemini | Self::OpenCode)
    }

    /// The variables with credentials that its program reads. Claude has settings of its own.
    const fn usual_credentials(self) -> &'static [&'static str] {
        match self {
            Self::Claude | Self::Command => &[],
            Self::Codex => &["CODEX_API_KEY", "OPENAI_API_KEY"],
            Self::Gemini => &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
            Self::OpenCode => &["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"],
        }
    }
}

/// How a tree of processes is stopped where it stands (`AWO_FREEZER`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Freezer {
    /// By cgroups where they can be made, else by tracing where that is allowed, else by signals.
    Auto,
    /// By cgroups of version 2; without them nothing starts.
    Cgroup,
    /// By tracing every process; where that is refused nothing starts.
    Ptrace,
    /// By SIGSTOP to every process that is found.
    Signal,
}

impl Freezer {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cgroup => "cgroup",
            Self::Ptrace => "ptrace",
            Self::Signal => "signal",
        }
    }
}

/// How steps are run by an agent.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Which program.
    pub kind: AgentKind,
    /// `AWO_AGENT_COMMAND`, split into program and arguments; set when `kind` is `Command`.
    pub command_line: Option<Vec<String>>,
    /// Settings of the Claude Code CLI.
    pub claude: ClaudeConfig,
    /// `AWO_AGENT_PROGRAM`: the program of a CLI other than Claude's, when it is not the usual one.
    pub program: Option<PathBuf>,
    /// `AWO_AGENT_MODEL`: its model.
    pub model: Option<String>,
    /// `AWO_AGENT_ARGUMENTS`: more arguments of it.
    pub arguments: Vec<String>,
    /// The credentials that the agent gets, by the names of their variables (`AWO_AGENT_CREDENTIALS`).
    /// Claude's own are not among them.
    pub credentials: Vec<(String, SecretString)>,
    /// `AGENT_WORK_ORDER_TIMEOUT`: longest time of one step.
    pub timeout: Duration,
    /// `AWO_AGENT_IDLE_TIMEOUT`: longest silence.
    pub idle_timeout: Duration,
    /// `AGENT_WORK_ORDER_COMMANDS_DIR`: command files that replace the built-in ones.
    pub commands_dir: Option<PathBuf>,
    /// `AWO_REVIEW_ROUNDS`: how often the blockers of a review go back to the agent.
    pub review_rounds: u32,
    /// `AWO_FREEZER`: how agents are frozen and held together.
    pub freezer: Freezer,
    /// How far they are shut in.
    pub isolation: IsolationConfig,
    /// The variables of the process that are no settings and no part of anybody else's: repositories may
    /// ask for them by name.
    pub inheritable: BTreeMap<String, String>,
}

/// Settings of the Claude Code CLI.
#[derive(Debug, Clone)]
pub struct ClaudeConfig {
    /// `CLAUDE_CLI_PATH`: a name to look up in `PATH`, or an absolute path.
    pub cli: PathBuf,
    /// `CLAUDE_CLI_MODEL`.
    pub model: Option<String>,
    /// `CLAUDE_CLI_MAX_TURNS`.
    pub max_turns: Option<u32>,
    /// `CLAUDE_CLI_MAX_BUDGET_USD`.
    pub max_budget_usd: Option<f64>,
    /// `ANTHROPIC_API_KEY`; `None` also when the token below is used instead.
    pub api_key: Option<SecretString>,
    /// `CLAUDE_CODE_OAUTH_TOKEN`.
    pub oauth_token: Option<SecretString>,
    /// `ANTHROPIC_BASE_URL`, as it was written.
    pub base_url: Option<String>,
}

impl AgentConfig {
    pub(super) fn read(
        reader: &mut Reader,
        folders: &FoldersConfig,
        warnings: &mut Vec<String>,
        unused_secrets: &mut Vec<SecretString>,
    ) -> Result<Self, ConfigError> {
        let home = reader.host().home();
        let kind = reader.value(&keys::AGENT, |text| AgentKind::from_str(text, true).ok())?;
        let command_line = reader.optional(&keys::AGENT_COMMAND, |text| {
            shell_words::split(text).ok().filter(|words| !words.is_empty())
        })?;
        if kind == AgentKind::Command && command_line.is_none() {
            let (name, expected) = (keys::AGENT_COMMAND.name(), keys::AGENT_COMMAND.expected);
            return Err(ConfigError::Unset { name, expected });
        }
        let claude = ClaudeConfig::read(reader, warnings, unused_secrets)?;
        let program =
            reader.optional(&keys::AGENT_PROGRAM, |text| program(text, home.as_deref()))?;
        let model = reader.optional(&keys::AGENT_MODEL, values::text)?;
        let arguments =
            reader.optional(&keys::AGENT_ARGUMENTS, |text| shell_words::split(text).ok())?;
        if !kind.is_preset() && (program.is_some() || model.is_some() || arguments.is_some()) {
            warnings.push(format!(
                "AWO_AGENT_PROGRAM, AWO_AGENT_MODEL and AWO_AGENT_ARGUMENTS are for codex, gemini and \
                 opencode, and AWO_AGENT is {}: they are not used",
                kind.as_str()
            ));
        }
        Ok(Self {
            kind,
            command_line,
            claude,
            program,
            model,
            arguments: arguments.unwrap_or_default(),
            credentials: credentials(reader, kind)?,
            timeout: reader.value(&keys::AGENT_TIMEOUT, values::duration)?,
            idle_timeout: reader.value(&keys::AGENT_IDLE_TIMEOUT, values::duration)?,
            commands_dir: reader
                .optional(&keys::COMMANDS_DIR, |text| values::path(text, home.as_deref()))?,
            review_rounds: reader.value(&keys::REVIEW_ROUNDS, values::number(0..=20))?,
            freezer: reader.value(&keys::FREEZER, |text| Freezer::from_str(text, true).ok())?,
            isolation: IsolationConfig::read(reader, folders)?,
            inheritable: reader.host().inheritable(),
        })
    }
}

impl AgentConfig {
    /// The program of the agent: a name to look up in `PATH`, or an absolute path.
    pub fn program(&self) -> PathBuf {
        match (self.kind, &self.command_line) {
            (AgentKind::Claude, _) => self.claude.cli.clone(),
            (AgentKind::Command, Some(words)) => {
                words.first().map(PathBuf::from).unwrap_or_default()
            }
            (kind, _) => self.program.clone().unwrap_or_else(|| PathBuf::from(kind.as_str())),
        }
    }
}

/// A program: a bare name stays one, since it is looked up in `PATH`.
fn program(text: &str, home: Option<&Path>) -> Option<PathBuf> {
    if text.contains('/') {
        values::path(text, home)
    } else {
        values::text(text).map(PathBuf::from)
    }
}

/// What the agent gets of the worker's environment as credentials.
fn credentials(
    reader: &mut Reader,
    kind: AgentKind,
) -> Result<Vec<(String, SecretString)>, ConfigError> {
    let chosen =
        reader.optional(&keys::AGENT_CREDENTIALS, |text| values::list(text, is_agents_own))?;
    let usual = || kind.usual_credentials().iter().map(|name| (*name).to_owned()).collect();
    let names: Vec<String> = chosen.unwrap_or_else(usual);
    let host = reader.host();
    let value =
        |name: &String| Some((name.clone(), values::secret(host.variable(name)?.to_str()?)?));
    let mut found: Vec<(String, SecretString)> = names.iter().filter_map(value).collect();
    let has = |name: &str, found: &[(String, SecretString)]| found.iter().any(|(n, _)| n == name);
    // `codex exec` reads this name alone.
    if kind == AgentKind::Codex
        && !has("CODEX_API_KEY", &found)
        && let Some((_, key)) = found.iter().find(|(name, _)| name == "OPENAI_API_KEY").cloned()
    {
        found.push(("CODEX_API_KEY".to_owned(), key));
    }
    Ok(found)
}

/// Whether an agent may have a variable of this name: it is none of ours, and a model provider's at most.
fn is_agents_own(name: &str) -> bool {
    let form = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    form && (name.starts_with("ANTHROPIC_") || !is_reserved(name))
}

impl ClaudeConfig {
    fn read(
        reader: &mut Reader,
        warnings: &mut Vec<String>,
        unused_secrets: &mut Vec<SecretString>,
    ) -> Result<Self, ConfigError> {
        let home = reader.host().home();
        let mut claude = Self {
            cli: reader.value(&keys::CLAUDE_CLI, |text| program(text, home.as_deref()))?,
            model: reader.optional(&keys::CLAUDE_MODEL, values::text)?,
            max_turns: reader.optional(&keys::CLAUDE_MAX_TURNS, values::number(1..=10_000))?,
            max_budget_usd: reader.optional(&keys::CLAUDE_MAX_BUDGET, |text| {
                text.parse().ok().filter(|amount: &f64| amount.is_finite() && *amount > 0.0)
            })?,
            api_key: reader.optional(&keys::ANTHROPIC_API_KEY, values::secret)?,
            oauth_token: reader.optional(&keys::CLAUDE_OAUTH_TOKEN, values::secret)?,
            base_url: reader.optional(&keys::ANTHROPIC_BASE_URL, |text| {
                values::web_address(text).map(|_| text.to_owned())
            })?,
        };
        // The token belongs to the CLI alone, while an API key in the environment is often there
        // for another program; given both, the CLI would take the key and spend its money.
        if claude.oauth_token.is_some()
            && let Some(key) = claude.api_key.take()
        {
            unused_secrets.push(key);
            warnings.push(
                "ANTHROPIC_API_KEY and CLAUDE_CODE_OAUTH_TOKEN are both set: the agent gets only \
                 CLAUDE_CODE_OAUTH_TOKEN"
                    .to_owned(),
            );
        }
        Ok(claude)
    }
}
