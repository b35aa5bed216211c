//! placeholder
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|word| word == "shim") {
        return archon_awo::agent::run_shim(arguments.into_iter().skip(2));
    }
    archon_awo::git::askpass::answer_if_asked().unwrap_or(ExitCode::SUCCESS)
}
