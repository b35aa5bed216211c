//! How the Claude Code CLI is called: its flags, its environment, its credential, its transcript.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{
    command::{InvalidCommand, find_program},
    headless::{self, DISALLOWED_TOOLS},
    launch::Launch,
    request::AgentRequest,
};
use crate::disk::{Beneath, Kind};

/// The CLI's settings for our runs: it neither commits nor opens pull requests, so it needs no
/// instructions for that, and no signature of its own. Older versions know the last key alone.
const SETTINGS: &str = r#"{"attribution":{"commit":"","pr":""},"includeGitInstructions":false,"includeCoAuthoredBy":false}"#;

/// Moves what differs from order to order (folders, git status) out of the system prompt, so that the provider's
/// cache serves that and the tools to all of them. Older versions do not know it.
const CONSTANT_PROMPT: &str = "--exclude-dynamic-system-prompt-sections";

/// Settings of the `claude` agent.
#[derive(Debug, Clone)]
pub struct ClaudeSettings {
    /// The program (`CLAUDE_CLI_PATH`): absolute, or a name in `PATH`.
    pub cli: PathBuf,
    /// The model; the CLI's own default when absent.
    pub model: Option<String>,
    /// Most turns of one run.
    pub max_turns: Option<u32>,
    /// Most US dollars of one run, by the CLI's own estimate.
    pub max_budget_usd: Option<f64>,
    /// How it authenticates; a login stored in its home when absent.
    pub credential: Option<ClaudeCredential>,
    /// Another endpoint than the vendor's.
    pub base_url: Option<String>,
    /// How often the CLI repeats a refused call by itself; as often as it likes when absent. A refused
    /// credential ends the run at once whatever it likes.
    pub max_retries: Option<u32>,
    /// Keeps the credential from the tools the CLI starts. Off by default: CLI 2.1.330 refuses to
    /// start with it unless `bubblewrap` is installed, and that needs user namespaces.
    pub scrub_tools: bool,
    /// More arguments, after ours.
    pub extra_arguments: Vec<String>,
}

/// Exactly one way to authenticate: with two, the CLI picks one silently and bills that.
#[derive(Debug, Clone)]
pub enum ClaudeCredential {
    /// `ANTHROPIC_API_KEY`.
    ApiKey(SecretString),
    /// `CLAUDE_CODE_OAUTH_TOKEN`.
    OAuthToken(SecretString),
    /// `ANTHROPIC_AUTH_TOKEN`, sent as a bearer token.
    AuthToken(SecretString),
}

impl ClaudeCredential {
    /// The secret itself.
    pub fn secret(&self) -> &SecretString {
        match self {
            Self::ApiKey(secret) | Self::OAuthToken(secret) | Self::AuthToken(secret) => secret,
        }
    }

    /// The variable the CLI reads it from.
    fn variable(&self) -> &'static str {
        match self {
            Self::ApiKey(_) => "ANTHROPIC_API_KEY",
            Self::OAuthToken(_) => "CLAUDE_CODE_OAUTH_TOKEN",
            Self::AuthToken(_) => "ANTHROPIC_AUTH_TOKEN",
        }
    }
}

impl ClaudeSettings {
    /// Settings for a program, with everything else as the CLI has it.
    pub fn new(cli: impl Into<PathBuf>) -> Self {
        Self {
            cli: cli.into(),
            model: None,
            max_turns: None,
            max_budget_usd: None,
            credential: None,
            base_url: None,
            max_retries: None,
            scrub_tools: false,
            extra_arguments: Vec::new(),
        }
    }

    /// How it is called for a request. `may_resume` is false when resuming was tried and failed.
    pub(super) fn launch(
        &self,
        request: &AgentRequest,
        path: &str,
        may_resume: bool,
    ) -> Result<Launch, InvalidCommand> {
        let program = find_program(&self.cli, path)?;
        let known = has_transcript(&request.home, request.session);
        let resumed = known && request.resume && may_resume;
        // The CLI refuses an id that was used before, so a fresh start needs a new one.
        let session = if known && !resumed || !may_resume {
            Uuid::new_v5(&request.session, request.run_id.as_bytes())
        } else {
            request.session
        };
        let mut environment = headless::environment(request.hard_timeout, &request.extra_env);
        environment.extend(self.environment(&request.home));
        if !request.unguided {
            // Instructions in the checkout, whose settings and hooks are another matter.
            let name = "CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD";
            environment.push((name.to_owned(), "1".to_owned()));
        }
        Ok(Launch {
            program,
            arguments: self.arguments(session, resumed, request.trusted && !request.unguided),
            optional: &[CONSTANT_PROMPT],
            environment,
            folders: vec![config_dir(&request.home)],
            session: Some(session),
            resumed,
            needs_result: true,
            prints_to_file: true,
            ..Launch::default()
        })
    }

    /// The arguments of a run; values that could begin with `-` stand behind `=`. Only of a `trusted`
    /// repository its own settings, hooks and servers count.
    pub fn arguments(&self, session: Uuid, resume: bool, trusted: bool) -> Vec<String> {
        let mut arguments: Vec<String> = [
            "-p",
            "--output-format=stream-json",
            "--verbose",
            // A sign of life while a long answer comes.
            "--include-partial-messages",
            "--dangerously-skip-permissions",
            "--add-dir=.",
            CONSTANT_PROMPT,
        ]
        .map(str::to_owned)
        .into();
        arguments.push(format!("--disallowedTools={DISALLOWED_TOOLS}"));
        if trusted {
            arguments.push("--setting-sources=user,project".to_owned());
        } else {
            // Hooks and servers of the repository would run on our account without a question.
            arguments.extend(["--setting-sources=user", "--strict-mcp-config"].map(str::to_owned));
        }
        arguments.push(format!("--settings={SETTINGS}"));
        let flag = if resume { "resume" } else { "session-id" };
        arguments.push(format!("--{flag}={session}"));
        arguments.extend(self.model.iter().map(|model| format!("--model={model}")));
        arguments.extend(self.max_turns.iter().map(|turns| format!("--max-turns={turns}")));
        arguments.extend(self.max_budget_usd.iter().map(|usd| format!("--max-budget-usd={usd}")));
        arguments.extend(self.extra_arguments.iter().cloned());
        arguments
    }

    /// The environment of a run, the credential included; `home` is its `HOME`.
    pub fn environment(&self, home: &Path) -> Vec<(String, String)> {
        let mut environment: Vec<(String, String)> = [
            ("CLAUDE_CONFIG_DIR", config_dir(home).display().to_string()),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
            ("DISABLE_AUTOUPDATER", "1".to_owned()),
            ("DISABLE_TELEMETRY", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if let Some(retries) = self.max_retries {
            environment.push(("CLAUDE_CODE_MAX_RETRIES".to_owned(), retries.to_string()));
        }
        if self.scrub_tools {
            environment.push(("CLAUDE_CODE_SUBPROCESS_ENV_SCRUB".to_owned(), "1".to_owned()));
        }
        if nix::unistd::geteuid().is_root() {
            // Without it the CLI refuses to skip permissions as root.
            environment.push(("IS_SANDBOX".to_owned(), "1".to_owned()));
        }
        if let Some(url) = &self.base_url {
            environment.push(("ANTHROPIC_BASE_URL".to_owned(), url.clone()));
        }
        if let Some(credential) = &self.credential {
            let secret = credential.secret().expose_secret().to_owned();
            environment.push((credential.variable().to_owned(), secret));
        }
        environment
    }
}

/// The CLI's own folder below `home`.
pub(super) fn config_dir(home: &Path) -> PathBuf {
    home.join(".claude")
}

/// The CLI's folder with the conversations below `home`, one folder for each working directory.
pub fn projects(home: &Path) -> PathBuf {
    config_dir(home).join("projects")
}

/// Whether the CLI has a transcript of `session`, in the folder of any working directory.
fn has_transcript(home: &Path, session: Uuid) -> bool {
    let name = format!("{session}.jsonl");
    let below = |home: Beneath| home.folder(Path::new(".claude/projects"));
    let Ok(projects) = Beneath::open(home).and_then(below) else { return false };
    let mut found = false;
    let listed = projects.names(|folder| {
        let transcript = projects.about(&Path::new(folder).join(&name));
        found |= transcript.is_ok_and(|about| about.kind == Kind::File);
        !found
    });
    listed.is_ok() && found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use uuid::Uuid;

    use super::{ClaudeCredential, ClaudeSettings, has_transcript};

    #[test]
    fn the_credential_is_in_the_environment_once_and_never_in_the_arguments() {
        let mut settings = ClaudeSettings::new("claude");
        settings.model = Some("-odd".to_owned());
        settings.credential = Some(ClaudeCredential::OAuthToken("sk-secret".to_owned().into()));
        let arguments = settings.arguments(Uuid::nil(), true, false).join(" ");
        assert!(arguments.contains("\"attribution\":{\"commit\":\"\",\"pr\":\"\"}"), "{arguments}");
        assert!(arguments.contains("--model=-odd") && arguments.contains("--resume=0000"));
        assert!(!arguments.contains("sk-secret") && !format!("{settings:?}").contains("sk-secret"));
        let environment = settings.environment(Path::new("/h"));
        let holders: Vec<_> = environment.iter().filter(|(_, v)| v == "sk-secret").collect();
        assert_eq!(holders, [&("CLAUDE_CODE_OAUTH_TOKEN".to_owned(), "sk-secret".to_owned())]);
    }

    #[test]
    fn a_transcript_is_found_in_any_project() {
        let home = tempfile::tempdir().unwrap();
        assert!(!has_transcript(home.path(), Uuid::nil()));
        let project = home.path().join(".claude/projects/-some-where");
        std::fs::create_dir_all(&project).unwrap();
        std::fs::write(project.join(format!("{}.jsonl", Uuid::nil())), "").unwrap();
        assert!(has_transcript(home.path(), Uuid::nil()));
    }
}
