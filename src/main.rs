//! The binary: finds out what it is asked to be.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|word| word == "shim") {
        return archon_awo::agent::run_shim(arguments);
    }
    ExitCode::FAILURE
}
