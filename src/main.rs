//! The program: parses the command line, runs one command, ends with its exit code.

fn main() -> std::process::ExitCode {
    archon_awo::cli::main()
}
