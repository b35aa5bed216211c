//! A process that reaches a few ports alone, and then becomes the program it is told: for programs of our own
//! that decide by themselves where they connect.

use std::{ffi::OsString, os::unix::process::CommandExt, process::ExitCode};

use super::isolation::reach_only;

/// Exit code of a program that could not be started, as shells have it.
const NOT_STARTED: u8 = 127;

/// Runs the hidden subcommand `reach`; `arguments` are those after its name: the ports with commas in between,
/// then the program and its arguments.
pub fn run_reach(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let ports = arguments.next().and_then(|ports| ports.into_string().ok()).unwrap_or_default();
    let ports: Result<Vec<u16>, _> = ports.split(',').map(str::parse).collect();
    let (Ok(ports), Some(program)) = (ports, arguments.next()) else {
        eprintln!("this stage is started by a worker only: its ports or its program are missing");
        return ExitCode::from(NOT_STARTED);
    };
    if let Err(reason) = reach_only(&ports) {
        eprintln!("{reason}");
        return ExitCode::from(NOT_STARTED);
    }
    let error =
        crate::process::blocking_command(&program).args(arguments).envs(std::env::vars_os()).exec();
    eprintln!("{} did not start: {error}", program.display());
    ExitCode::from(NOT_STARTED)
}
