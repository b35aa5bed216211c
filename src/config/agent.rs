//! Who does the work of a step.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::ValueEnum;
use secrecy::SecretString;

use super::{ConfigError, FoldersConfig, IsolationConfig, keys, source::Reader, values};

/// Which program is the agent (`AWO_AGENT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AgentKind {
    /// The Claude Code CLI.
    Claude,
    /// Any program: prompt on standard input, answer on standard output.
    Command,
}

/// How a tree of processes is stopped where it stands (`AWO_FREEZER`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Freezer {
    /// By cgroups where they can be made, else by signals.
    Auto,
    /// By cgroups of version 2; without them nothing starts.
    Cgroup,
    /// By SIGSTOP to every process that is found.
    Signal,
}

impl Freezer {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cgroup => "cgroup",
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
    /// `AGENT_WORK_ORDER_TIMEOUT`: longest time of one step.
    pub timeout: Duration,
    /// `AWO_AGENT_IDLE_TIMEOUT`: longest silence.
    pub idle_timeout: Duration,
    /// `AGENT_WORK_ORDER_COMMANDS_DIR`: command files that replace the built-in ones.
    pub commands_dir: Option<PathBuf>,
    /// `AWO_REVIEW_ROUNDS`: how often the blockers of a review go back to the agent.
    pub review_rounds: u32,
    /// `AWO_FREEZER`: how agents are frozen.
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
        Ok(Self {
            kind,
            command_line,
            claude: ClaudeConfig::read(reader, warnings, unused_secrets)?,
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

impl ClaudeConfig {
    fn read(
        reader: &mut Reader,
        warnings: &mut Vec<String>,
        unused_secrets: &mut Vec<SecretString>,
    ) -> Result<Self, ConfigError> {
        let home = reader.host().home();
        let mut claude = Self {
            cli: reader.value(&keys::CLAUDE_CLI, |text| {
                // A bare name stays one: it is looked up in PATH.
                if text.contains('/') {
                    values::path(text, home.as_deref())
                } else {
                    values::text(text).map(PathBuf::from)
                }
            })?,
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
