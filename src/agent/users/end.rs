//! Ends all processes of a user at once: a process that became that user and has no other right signals
//! everything it may. What forks meanwhile is signalled too, so there is nothing to look for.

use std::{ffi::OsString, fs, process::ExitCode, thread::sleep, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Gid, Pid, Uid, geteuid, getpid, setgid, setgroups, setuid},
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::agent::lifeline::EXIT_SETUP;

/// How often it is tried again while something is left: what waits in the kernel dies later.
const ROUNDS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Has everything of a user ended; the error says what is left. Blocks.
pub fn end_all(uid: u32) -> Result<(), String> {
    if !has_processes(uid) {
        return Ok(());
    }
    let mut command = crate::process::blocking_command("/proc/self/exe");
    command.arg("end-user").arg(uid.to_string());
    let failed = |why: String| format!("the processes of user {uid} could not be ended: {why}");
    let ended = command.output().map_err(|error| failed(error.to_string()))?;
    if ended.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&ended.stderr).trim().to_owned()))
}

/// Runs the hidden subcommand `end-user`; its argument is the number of the user.
pub fn run_end_user(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let uid = arguments.next().and_then(|word| word.to_str()?.parse().ok());
    let ended = match uid {
        Some(uid) if uid != 0 => become_only(uid).and_then(|()| end(uid)),
        _ => Err("this is started by archon-awo alone: it names no user".to_owned()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(EXIT_SETUP)
        }
    }
}

/// Becomes the user for good, or everything else would be signalled too.
fn become_only(uid: u32) -> Result<(), String> {
    let failed = |error: nix::Error| error.to_string();
    setgroups(&[]).map_err(failed)?;
    setgid(Gid::from_raw(uid)).map_err(failed)?;
    setuid(Uid::from_raw(uid)).map_err(failed)?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).map_err(|error| error.to_string())?;
    let left = capabilities(None).map_err(|error| error.to_string())?;
    if left.effective.is_empty() && geteuid() == Uid::from_raw(uid) {
        Ok(())
    } else {
        Err("rights are left".to_owned())
    }
}

fn end(uid: u32) -> Result<(), String> {
    for _ in 0..ROUNDS {
        // It never signals itself. That there is nobody is as good as that all were reached.
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        if !has_processes(uid) {
            return Ok(());
        }
        sleep(PAUSE);
    }
    Err("some are left".to_owned())
}

/// Whether a process of that user lives, besides this one.
fn has_processes(uid: u32) -> bool {
    let own = getpid().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.any(|name| {
        if name == own || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            return false;
        }
        let status = fs::read_to_string(format!("/proc/{name}/status")).unwrap_or_default();
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
        let dead = field("State:").is_some_and(|state| state.trim_start().starts_with(['Z', 'X']));
        let mut users = field("Uid:").unwrap_or_default().split_ascii_whitespace();
        !dead && users.any(|user| user.parse() == Ok(uid))
    })
}
