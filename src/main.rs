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
    if let Some(code) = try_demo() {
        return code;
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
}

#[derive(clap::Parser)]
enum Try {
    Demo(archon_awo::demo::DemoArgs),
    Dev(archon_awo::demo::DevArgs),
    Worker,
}

/// Until the command line is there.
fn try_demo() -> Option<ExitCode> {
    use clap::Parser;
    let clock = archon_awo::clock::Clock::system();
    let host = archon_awo::config::Host::system();
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let result = match Try::parse() {
        Try::Demo(args) => runtime().block_on(archon_awo::demo::run(args, &host, clock)),
        Try::Dev(args) => runtime().block_on(archon_awo::demo::dev(args, &host, clock)),
        Try::Worker => return None,
    };
    Some(archon_awo::exit::report(result))
}
