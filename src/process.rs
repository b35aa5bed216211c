//! The only place that starts processes.
//!
//! Every command starts from an empty environment: what a child may see is written down by its
//! caller, so that a credential of the worker cannot reach it by accident.

use std::{ffi::OsStr, process::Stdio};

use tokio::process::Command;

/// A command with no environment, no standard input, and piped output; killed when dropped.
#[expect(clippy::disallowed_methods, reason = "this is the one place that may start processes")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command.envs(coverage());
    command
}

/// The blocking form, for code that runs without a runtime (the shim, setting up a demo).
#[expect(clippy::disallowed_methods, reason = "this is the one place that may start processes")]
pub fn blocking_command(program: impl AsRef<OsStr>) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.env_clear().stdin(Stdio::null()).envs(coverage());
    command
}

/// Where the children of a build that counts coverage leave their counts; nothing in every other.
#[cfg(tarpaulin)]
#[expect(clippy::disallowed_methods, reason = "not a setting: set by the tool for its own build")]
fn coverage() -> Option<(&'static str, std::ffi::OsString)> {
    let name = "LLVM_PROFILE_FILE";
    std::env::var_os(name).map(|pattern| (name, pattern))
}

#[cfg(not(tarpaulin))]
const fn coverage() -> Option<(&'static str, &'static str)> {
    None
}
