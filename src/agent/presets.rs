//! Agent CLIs that are known by name: how each is called, and what its lines mean.
//!
//! None of them is asked to keep to our form. Their lines are translated into the common one, that of the
//! Claude CLI, so that there is one conversation, one verdict and one report for all.

mod codex;
mod gemini;
mod lines;
mod opencode;
mod sessions;

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{
    command::{InvalidCommand, find_program},
    launch::{ExitMeaning, Launch},
    request::AgentRequest,
};

pub(super) use lines::error_in;
pub(super) use sessions::note;

/// A CLI that is known by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// OpenAI's Codex CLI.
    Codex,
    /// Google's Gemini CLI.
    Gemini,
    /// opencode.
    OpenCode,
}

/// Settings of such a CLI.
#[derive(Debug, Clone)]
pub struct PresetSettings {
    /// Which one.
    pub preset: Preset,
    /// The program: absolute, or a name in `PATH`.
    pub program: PathBuf,
    /// The model, as the CLI names it; its own default when absent.
    pub model: Option<String>,
    /// More arguments.
    pub extra_arguments: Vec<String>,
}

/// One call of a CLI.
struct Call<'a> {
    settings: &'a PresetSettings,
    request: &'a AgentRequest,
    /// The conversation to go on with, by the CLI's own name for it.
    conversation: Option<&'a str>,
    /// The folder for what the CLI keeps of this conversation.
    folder: &'a Path,
}

/// What differs from one CLI to the other.
trait Cli: Sync {
    /// Its arguments, those of the settings among them; values that could begin with `-` stand behind `=`.
    /// The prompt comes on standard input.
    fn arguments(&self, call: &Call<'_>) -> Vec<String>;

    /// Its own part of the environment. Credentials are not in it.
    fn environment(&self, call: &Call<'_>) -> Vec<(String, String)>;

    /// Files of settings that it finds.
    fn files(&self, _call: &Call<'_>) -> Vec<(PathBuf, String)> {
        Vec::new()
    }

    /// Understands the lines of one run.
    fn listener(&self) -> Box<dyn Listener>;

    /// What its exit codes say of a run that gave no result.
    fn exit_meaning(&self) -> Option<ExitMeaning> {
        None
    }
}

/// Turns the lines that a CLI prints into lines of the common form.
pub(super) trait Listener: Send {
    /// The next line, a JSON object.
    fn hear(&mut self, line: &Value) -> Vec<Value>;

    /// The end of the output.
    fn end(&mut self) -> Vec<Value> {
        Vec::new()
    }

    /// The CLI's own name for the conversation, once it has told it.
    fn conversation(&self) -> Option<&str>;
}

impl Preset {
    /// The word for it: the value of `AWO_AGENT`, and the name of its program.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Codex => "codex",
            Self::Gemini => "gemini",
            Self::OpenCode => "opencode",
        }
    }

    /// What opens its model provider, for sentences.
    pub(super) const fn credential(self) -> &'static str {
        match self {
            Self::Codex => "CODEX_API_KEY",
            Self::Gemini => "GEMINI_API_KEY",
            Self::OpenCode => "the key of the provider that AWO_AGENT_MODEL names",
        }
    }

    fn cli(self) -> &'static dyn Cli {
        match self {
            Self::Codex => &codex::Codex,
            Self::Gemini => &gemini::Gemini,
            Self::OpenCode => &opencode::OpenCode,
        }
    }

    /// Understands the lines of one run.
    pub(super) fn listener(self) -> Box<dyn Listener> {
        self.cli().listener()
    }
}

impl PresetSettings {
    /// How it is called for a request. `may_resume` is false when resuming was tried and failed.
    pub(super) fn launch(
        &self,
        request: &AgentRequest,
        path: &str,
        may_resume: bool,
    ) -> Result<Launch, InvalidCommand> {
        let program = find_program(&self.program, path)?;
        let known = sessions::recall(&request.spool, request.session, self.preset);
        let conversation = known.filter(|_| request.resume && may_resume);
        let folder = request.session_folder();
        let call = Call {
            settings: self,
            request,
            conversation: conversation.as_deref(),
            folder: &folder,
        };
        let cli = self.preset.cli();
        Ok(Launch {
            program,
            arguments: cli.arguments(&call),
            environment: cli.environment(&call),
            folders: request.session_folders().into(),
            files: cli.files(&call),
            session: Some(request.session),
            resumed: conversation.is_some(),
            needs_result: true,
            preset: Some(self.preset),
            exit_meaning: cli.exit_meaning(),
            ..Launch::default()
        })
    }
}

#[cfg(test)]
mod tests;
