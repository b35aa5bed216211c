<<<<<<< HEAD
//! placeholder
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = archon_awo::git::askpass::answer_if_asked() {
        return code;
    }
    let arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|word| word == "shim") {
        return archon_awo::agent::run_shim(arguments.into_iter().skip(2));
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let result = runtime.block_on(async {
        let config = archon_awo::config::Config::load(&archon_awo::config::Host::system())?;
        let shutdown = archon_awo::shutdown::Shutdown::on_signals()?;
        archon_awo::queue::Worker::prepare(
            config,
            Default::default(),
            archon_awo::clock::Clock::system(),
            shutdown,
        )
        .await?
        .run()
        .await
    });
    archon_awo::exit::report(result)
=======
//! The program: parses the command line, runs one command, ends with its exit code.

fn main() -> std::process::ExitCode {
    archon_awo::cli::main()
>>>>>>> cli
}
