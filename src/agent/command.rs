//! The `command` agent: any program that reads the request on standard input.

use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::{launch::Launch, request::AgentRequest};
use crate::domain::ErrorClass;

/// Which program (`AWO_AGENT_COMMAND`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSettings {
    /// Program and arguments, quoted as for a shell; no shell runs it.
    pub command_line: String,
}

/// Why a program cannot be used as an agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCommand {
    /// There is none.
    #[error("AWO_AGENT_COMMAND is empty: expected a program and its arguments")]
    Empty,
    /// Its quotes do not match.
    #[error("AWO_AGENT_COMMAND {0:?} has a quote that is not closed")]
    Quotes(String),
    /// A path whose meaning depends on the working directory, which the agent writes.
    #[error(
        "the agent's program {0:?} is a relative path: expected an absolute one, or a name in PATH"
    )]
    Relative(String),
    /// No such file.
    #[error("the agent's program {0:?} was not found: install it or correct its path")]
    NotFound(String),
    /// Not a program.
    #[error("the agent's program {0:?} is not an executable file: correct its path or its mode")]
    NotExecutable(String),
}

impl CommandSettings {
    /// How it is called.
    pub(super) fn launch(
        &self,
        request: &AgentRequest,
        path: &str,
    ) -> Result<Launch, InvalidCommand> {
        let (program, arguments) = self.split(path)?;
        let folder = request.session_folder().display().to_string();
        Ok(Launch {
            program,
            arguments,
            environment: vec![("AWO_SESSION_DIR".to_owned(), folder)],
            folders: request.session_folders().into(),
            session: Some(request.session),
            exit_meaning: Some(exit_meaning),
            ..Launch::default()
        })
    }

    /// The program, found in `path` if need be, and its arguments.
    pub fn split(&self, path: &str) -> Result<(PathBuf, Vec<String>), InvalidCommand> {
        let mut words = shell_words::split(&self.command_line)
            .map_err(|_| InvalidCommand::Quotes(self.command_line.clone()))?
            .into_iter();
        let program = words.next().filter(|word| !word.is_empty()).ok_or(InvalidCommand::Empty)?;
        Ok((find_program(Path::new(&program), path)?, words.collect()))
    }
}

/// What the exit codes of `sysexits.h` say that a program may use to tell why it failed.
fn exit_meaning(code: i32) -> Option<(ErrorClass, &'static str)> {
    Some(match code {
        69 | 75 => {
            (ErrorClass::Overloaded, "the agent cannot work now and asks to be tried again later")
        }
        77 => (ErrorClass::Auth, "the agent's credential was refused"),
        78 => (ErrorClass::Invalid, "the agent is not configured as it should be"),
        _ => return None,
    })
}

/// Finds a program as a shell would, and makes sure that it can be started.
pub fn find_program(program: &Path, path: &str) -> Result<PathBuf, InvalidCommand> {
    let name = || program.display().to_string();
    let usable = |file: &Path| file.is_file() && access(file, AccessFlags::X_OK).is_ok();
    if program.is_absolute() {
        return match (program.exists(), usable(program)) {
            (_, true) => Ok(program.to_owned()),
            (true, false) => Err(InvalidCommand::NotExecutable(name())),
            (false, _) => Err(InvalidCommand::NotFound(name())),
        };
    }
    if program.components().count() != 1 {
        return Err(InvalidCommand::Relative(name()));
    }
    let folders = path.split(':').map(Path::new).filter(|folder| folder.is_absolute());
    let found: Vec<PathBuf> =
        folders.map(|folder| folder.join(program)).filter(|file| file.is_file()).collect();
    match found.iter().find(|file| usable(file)) {
        Some(file) => Ok(file.clone()),
        None if found.is_empty() => Err(InvalidCommand::NotFound(name())),
        None => Err(InvalidCommand::NotExecutable(name())),
    }
}

#[cfg(test)]
mod tests {
    use super::{CommandSettings, InvalidCommand};

    fn split(command_line: &str) -> Result<Vec<String>, InvalidCommand> {
        let settings = CommandSettings { command_line: command_line.to_owned() };
        settings.split("relative:/nowhere:/bin").map(|(_, arguments)| arguments)
    }

    #[test]
    fn words_are_split_like_a_shell_would_without_running_one() {
        let words = split("sh -c 'echo $HOME; `id`' \"a b\" c\\ d").unwrap();
        assert_eq!(words, ["-c", "echo $HOME; `id`", "a b", "c d"]);
    }

    #[test]
    fn a_program_that_cannot_be_started_is_named() {
        for (line, words) in [
            ("", "is empty"),
            ("sh 'x", "quote"),
            ("./agent", "\"./agent\" is a relative path"),
            ("no-such-agent", "\"no-such-agent\" was not found"),
            ("/no/such/agent x", "\"/no/such/agent\" was not found"),
            ("/etc/passwd", "\"/etc/passwd\" is not an executable"),
            ("/etc", "not an executable"),
        ] {
            let error = split(line).map_err(|error| error.to_string());
            assert!(error.clone().is_err_and(|e| e.contains(words)), "{line:?}: {error:?}");
        }
    }
}
