//! What is set for an agent, by the names that an administrator knows: for sentences that say what to change.

use super::{kind::AgentKind, presets::Preset};

/// The names for one kind of agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingNames {
    /// What opens the model provider.
    pub credential: &'static str,
    /// How a login that has expired is renewed, where that is not said by the credential.
    pub new_login: Option<&'static str>,
    /// The model.
    pub model: &'static str,
    /// The provider's address.
    pub address: &'static str,
    /// The most turns of a run.
    pub max_turns: &'static str,
    /// The most US dollars of a run.
    pub max_budget: &'static str,
}

/// Those of the Claude Code CLI.
const CLAUDE: SettingNames = SettingNames {
    credential: "ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN",
    new_login: Some("set a new CLAUDE_CODE_OAUTH_TOKEN, or ANTHROPIC_API_KEY instead"),
    model: "CLAUDE_CLI_MODEL",
    address: "ANTHROPIC_BASE_URL",
    max_turns: "CLAUDE_CLI_MAX_TURNS",
    max_budget: "CLAUDE_CLI_MAX_BUDGET_USD",
};

impl SettingNames {
    /// The names for this agent.
    pub const fn of(agent: &AgentKind) -> Self {
        match agent {
            AgentKind::Claude(_) => CLAUDE,
            AgentKind::Command(_) => {
                Self::of_others("the variables of AWO_AGENT_CREDENTIALS", "AWO_AGENT_COMMAND")
            }
            AgentKind::Preset(settings) => Self::of_preset(settings.preset),
        }
    }

    const fn of_preset(preset: Preset) -> Self {
        Self::of_others(preset.credential(), "AWO_AGENT_MODEL")
    }

    const fn of_others(credential: &'static str, model: &'static str) -> Self {
        Self {
            credential,
            new_login: None,
            model,
            address: "the address that it is told",
            max_turns: "the agent's own limit",
            max_budget: "the agent's own limit",
        }
    }
}

impl Default for SettingNames {
    fn default() -> Self {
        CLAUDE
    }
}
