//! A process between a worker and a git that writes many files: when its worker is gone, in whatever way, it
//! ends git with all its helpers, which would go on filling the volume for nobody.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::unix::process::ExitStatusExt,
    process::ExitCode,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::process;

/// The role of this binary.
pub const ROLE: &str = "keep-git";
/// What it ends with when there is no such program, as shells do.
pub(super) const NOT_STARTED: u8 = 127;
/// What it says then.
pub(super) const SAYS: &str = "cannot be started:";

/// Runs the program that the arguments name, in the process group of this one, until it ends or standard input
/// does: its other end is the worker's.
pub fn keep(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let program = arguments.next().unwrap_or_default();
    let mut command = process::blocking_command(&program);
    command.args(arguments).envs(std::env::vars_os());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{} {SAYS} {error}", program.display());
            return ExitCode::from(NOT_STARTED);
        }
    };
    std::thread::spawn(|| {
        // Nothing is ever written there: it ends, or it breaks.
        let _ = io::stdin().read(&mut [0]);
        let _ = killpg(Pid::from_raw(0), Signal::SIGKILL);
    });
    match child.wait() {
        Ok(status) => {
            let code = status.code().or(status.signal().map(|signal| 128 + signal));
            ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
        }
        Err(_) => ExitCode::FAILURE,
    }
}
