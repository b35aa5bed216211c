//! Whether this host can run work orders: asked by `doctor` and by every worker before it starts,
//! so that a missing program is a sentence at the start and not a failed order in the night.

use std::{
    fmt::Write as _,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{AgentKind, Config, Freezer, keys};
use crate::disk;

/// Something that keeps work orders from running here.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The setting that points at it.
    pub setting: &'static str,
    /// What is wrong, naming the value.
    pub problem: String,
    /// What to do about it.
    pub help: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.problem, self.help)
    }
}

/// What keeps work orders from running on this host: all of it, so that one look is enough.
#[derive(Debug, thiserror::Error)]
#[error("this host cannot run work orders: {}", one_per_line(.0))]
pub struct NotRunnable(pub Vec<Problem>);

fn one_per_line(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |mut text, problem| {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  - {problem}");
        text
    })
}

/// Checks folders, agent and command files; all problems at once. Blocks on the disk.
pub fn check_runnable(config: &Config) -> Result<(), NotRunnable> {
    let folders = &config.folders;
    let checks = [
        check_folder(keys::REPOSITORY_DIR.name(), &folders.repositories),
        check_folder(keys::WORK_ORDER_DIR.name(), &folders.work_orders),
        check_folder(keys::CONFIG_DIR.name(), &folders.config),
        check_agent(config).map(|_| ()),
        check_commands(config),
        check_ca_file(config),
    ];
    let problems: Vec<Problem> = checks.into_iter().filter_map(Result::err).collect();
    if problems.is_empty() { Ok(()) } else { Err(NotRunnable(problems)) }
}

/// Makes the folder where it is missing and proves that a file can be written there: permission
/// bits alone say nothing to root, on read-only mounts and on full disks.
pub(crate) fn check_folder(setting: &'static str, folder: &Path) -> Result<(), Problem> {
    let problem = |error: std::io::Error| Problem {
        setting,
        problem: format!(
            "{setting} is {:?}, which cannot be written to: {error}",
            folder.display()
        ),
        help: "make the folder writable for this user, or name another one".to_owned(),
    };
    fs::create_dir_all(folder).map_err(problem)?;
    // Replicas may share the folder, and in containers their process ids are the same.
    let probe = folder.join(format!(".archon-awo-probe-{}", uuid::Uuid::new_v4()));
    let written = fs::File::create(&probe).and_then(|mut file| file.write_all(b"probe"));
    let removed = fs::remove_file(&probe);
    match written {
        // It may be written to once there is room: the marks of the disk see to that.
        Err(error) if disk::is_full(&error) => Ok(()),
        written => written.and(removed).map_err(problem),
    }
}

/// Finds the agent's program.
pub(crate) fn check_agent(config: &Config) -> Result<PathBuf, Problem> {
    let kind = config.agent.kind;
    let program = config.agent.program();
    let setting = match kind {
        AgentKind::Claude => keys::CLAUDE_CLI.name(),
        AgentKind::Command => keys::AGENT_COMMAND.name(),
        AgentKind::Codex | AgentKind::Gemini | AgentKind::OpenCode => keys::AGENT_PROGRAM.name(),
    };
    find_program(&program, &config.search_path).map_err(|reason| Problem {
        setting,
        problem: format!("{setting} names the agent {:?}, which {reason}", program.display()),
        help: match kind {
            AgentKind::Claude => {
                "install Claude Code, or set CLAUDE_CLI_PATH to where it is".to_owned()
            }
            AgentKind::Command => {
                "set AWO_AGENT_COMMAND to a program that exists and may be executed".to_owned()
            }
            AgentKind::Codex | AgentKind::Gemini | AgentKind::OpenCode => {
                format!("install {}, or set {setting} to where it is", kind.as_str())
            }
        },
    })
}

/// The path of a program: as it is when it holds a `/`, else looked up in `search_path`.
///
/// The error says what is wrong with it, to follow "which".
pub fn find_program(program: &Path, search_path: &str) -> Result<PathBuf, &'static str> {
    let executable = |path: &Path| {
        fs::metadata(path)
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if program.components().count() > 1 {
        return match fs::metadata(program) {
            Err(_) => Err("does not exist"),
            Ok(metadata) if metadata.is_dir() => Err("is a folder"),
            Ok(_) if executable(program) => Ok(program.to_owned()),
            Ok(_) => Err("is not executable"),
        };
    }
    let candidates: Vec<PathBuf> =
        std::env::split_paths(search_path).map(|folder| folder.join(program)).collect();
    if let Some(found) = candidates.iter().find(|path| executable(path)) {
        return Ok(found.clone());
    }
    let exists = candidates.iter().any(|path| path.is_file());
    Err(if exists { "is not executable" } else { "is not in PATH" })
}

/// Checks that command files that are to replace the built-in ones can be read.
pub(crate) fn check_commands(config: &Config) -> Result<(), Problem> {
    let Some(folder) = &config.agent.commands_dir else { return Ok(()) };
    let setting = keys::COMMANDS_DIR.name();
    let problem = |what: String| Problem {
        setting,
        problem: what,
        help: "correct the path, or unset it to use the built-in command files".to_owned(),
    };
    let entries = fs::read_dir(folder).map_err(|error| {
        problem(format!("{setting} is {:?}, which cannot be read: {error}", folder.display()))
    })?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "md")
            && let Err(error) = fs::read_to_string(&path)
        {
            let path = path.display();
            return Err(problem(format!("the command file {path:?} cannot be read: {error}")));
        }
    }
    Ok(())
}

/// What is wrong when agents shall be held in this way and cannot; `reason` says why.
pub(crate) fn freezer_problem(wanted: Freezer, reason: &str) -> Problem {
    let setting = keys::FREEZER.name();
    let help = match wanted {
        Freezer::Ptrace => {
            "let the worker trace its own children (kernel.yama.ptrace_scope 0 or 1, a seccomp profile \
             that allows ptrace), or set it to auto"
        }
        _ => {
            "delegate a cgroup of version 2 to the worker (systemd: Delegate=yes), or set it to auto"
        }
    };
    Problem {
        setting,
        problem: format!("{setting} is {}, and {reason}", wanted.as_str()),
        help: help.to_owned(),
    }
}

/// What is wrong when agents cannot be shut in as far as they have to be; `reason` says why.
pub(crate) fn isolation_problem(reason: &str) -> Problem {
    Problem {
        setting: keys::ISOLATION.name(),
        problem: reason.to_owned(),
        help: "docs/security.md says what each part needs; auto runs agents with less".to_owned(),
    }
}

pub(crate) fn check_ca_file(config: &Config) -> Result<(), Problem> {
    let Some(file) = &config.git.ca_file else { return Ok(()) };
    let setting = keys::GIT_CA_FILE.name();
    let reason = match fs::read_to_string(file) {
        Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => return Ok(()),
        Ok(_) => "holds no PEM certificate".to_owned(),
        Err(error) => format!("cannot be read: {error}"),
    };
    Err(Problem {
        setting,
        problem: format!("{setting} is {:?}, which {reason}", file.display()),
        help: "name a PEM file of certificate authorities, or unset it".to_owned(),
    })
}
