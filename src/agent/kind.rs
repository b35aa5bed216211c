//! Which agent works, and what is the same question for all of them.

use secrecy::SecretString;

use super::{
    claude::{ClaudeCredential, ClaudeSettings},
    command::{CommandSettings, InvalidCommand},
    launch::Launch,
    presets::{Preset, PresetSettings},
    request::AgentRequest,
};
use crate::config::{self, ClaudeConfig, Config};

/// Which agent, with its settings. Each has a file of its own: its arguments, its environment, its
/// conversations.
#[derive(Debug, Clone)]
pub enum AgentKind {
    /// The Claude Code CLI.
    Claude(ClaudeSettings),
    /// Any program.
    Command(CommandSettings),
    /// One of the CLIs that are known by name.
    Preset(PresetSettings),
}

impl AgentKind {
    /// The agent as the settings of this process want it.
    pub fn configured(config: &Config) -> Self {
        let preset = match config.agent.kind {
            config::AgentKind::Claude => return Self::claude(&config.agent.claude),
            config::AgentKind::Command => {
                let words = config.agent.command_line.iter().flatten();
                let command_line = shell_words::join(words);
                return Self::Command(CommandSettings { command_line });
            }
            config::AgentKind::Codex => Preset::Codex,
            config::AgentKind::Gemini => Preset::Gemini,
            config::AgentKind::OpenCode => Preset::OpenCode,
        };
        Self::Preset(PresetSettings {
            preset,
            program: config.agent.program(),
            model: config.agent.model.clone(),
            extra_arguments: config.agent.arguments.clone(),
        })
    }

    fn claude(claude: &ClaudeConfig) -> Self {
        let mut settings = ClaudeSettings::new(claude.cli.clone());
        settings.model.clone_from(&claude.model);
        settings.max_turns = claude.max_turns;
        settings.max_budget_usd = claude.max_budget_usd;
        settings.base_url.clone_from(&claude.base_url);
        let key = claude.api_key.clone().map(ClaudeCredential::ApiKey);
        settings.credential = claude.oauth_token.clone().map(ClaudeCredential::OAuthToken).or(key);
        Self::Claude(settings)
    }

    /// The name stored with the steps it does.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Claude(_) => "claude",
            Self::Command(_) => "command",
            Self::Preset(settings) => settings.preset.as_str(),
        }
    }

    /// The credentials that its settings hold.
    pub(super) fn secrets(&self) -> Vec<SecretString> {
        match self {
            Self::Claude(settings) => {
                settings.credential.iter().map(|credential| credential.secret().clone()).collect()
            }
            Self::Command(_) | Self::Preset(_) => Vec::new(),
        }
    }

    /// The program, found in `path` if need be, and how it is called. `may_resume` is false when
    /// resuming was tried and failed.
    pub(super) fn launch(
        &self,
        request: &AgentRequest,
        path: &str,
        may_resume: bool,
    ) -> Result<Launch, InvalidCommand> {
        match self {
            Self::Claude(settings) => settings.launch(request, path, may_resume),
            Self::Command(settings) => settings.launch(request, path),
            Self::Preset(settings) => settings.launch(request, path, may_resume),
        }
    }
}
