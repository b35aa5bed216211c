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
    command
}

/// The blocking form, for code that runs without a runtime (the shim, setting up a demo).
#[expect(clippy::disallowed_methods, reason = "this is the one place that may start processes")]
pub fn blocking_command(program: impl AsRef<OsStr>) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.env_clear().stdin(Stdio::null());
    command
}
