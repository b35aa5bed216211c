//! The command line: one file per subcommand, one place that starts and ends each of them.

mod agent;
mod bench;
mod cancel;
mod config;
mod doctor;
mod enqueue;
mod gc;
mod health;
mod list;
mod log_view;
mod logs;
mod migrate;
mod other_agents;
mod output;
mod pause;
mod prompt;
mod repository;
mod requeue;
mod show;
mod wait;
mod words;
pub mod worker;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    clock::Clock,
    config::{Config, Host},
    demo,
    domain::Redactor,
    exit,
    store::{self, Store},
    telemetry::{self, Audience},
};
use output::Output;

/// Runs agent work orders: claims them from Postgres and ends them as pull requests.
#[derive(Debug, Parser)]
#[command(name = "archon-awo", version, max_term_width = 100)]
pub struct Cli {
    /// Print data as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take work orders from the queue until told to stop.
    Worker,
    /// Bring the database schema up to date.
    Migrate(migrate::Args),
    /// Order work.
    Enqueue(enqueue::Args),
    /// List the newest work orders.
    List(list::Args),
    /// Show one work order: steps, attempts, artifacts.
    Show(show::Args),
    /// Print the log of a work order.
    Logs(logs::Args),
    /// Cancel a work order, running or not.
    Cancel(cancel::Args),
    /// Run a work order again that failed or was cancelled.
    Requeue(requeue::Args),
    /// Say more to a work order that has ended: the agent goes on in the same sandbox.
    ///
    /// It gets the text with its conversation where that still exists, then what follows the step execute
    /// runs again. A sandbox that is gone is made again from the saved or the pushed work.
    Prompt(prompt::Args),
    /// Stop taking orders from a queue; running ones go on.
    Pause(pause::Args),
    /// Take orders from a paused queue again.
    Resume(pause::Args),
    /// Show what is set for a repository, and set it: what is fetched of it, how many of its orders run.
    ///
    /// Without an option it only shows. Sandboxes that are made from then on are made so.
    Repository(repository::Args),
    /// Take the sandboxes of ended orders away that are old enough.
    ///
    /// What is only in a sandbox is saved as a git bundle first. Orders that wait or run are left alone.
    Gc(gc::Args),
    /// Ask a worker for its health; exit code 0 when it can work.
    Health(health::Args),
    /// Show the main job on this machine: no Docker, no account, no key.
    Demo(demo::DemoArgs),
    /// The demo's surroundings, left running to try things out.
    Dev(demo::DevArgs),
    /// Try out the agent that runs the steps.
    #[command(subcommand)]
    Agent(agent::Command),
    /// Measure this machine.
    Bench(bench::Args),
    /// Check everything a worker needs, and say what to do.
    Doctor,
    /// Print every setting with its value and where it comes from.
    ///
    /// Settings are read from the environment, then from agent-settings.yaml in the folder
    /// `AWO_CONFIG_DIR`, then from ~/.archon/config.yaml, then from defaults. In files the names
    /// are those of the environment in lower case.
    Config,
}

/// The program.
pub fn main() -> ExitCode {
    // More roles of this binary, all started for a worker: git asks for a password, an agent is
    // watched over, shut in before it begins, and ended when nobody else is left to. They need no settings
    // and start no threads.
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next();
    // Before the next one: what it starts gets the environment by which git asks.
    if role.as_ref().is_some_and(|word| word == "reach") {
        return crate::agent::run_reach(arguments);
    }
    if let Some(code) = crate::git::askpass::answer_if_asked() {
        return code;
    }
    if role.as_ref().is_some_and(|word| word == "shim") {
        return crate::agent::run_shim(arguments);
    }
    if role.as_ref().is_some_and(|word| word == crate::agent::WATCHMAN) {
        return crate::agent::run_watchman();
    }
    if role.as_ref().is_some_and(|word| word == "confine") {
        return crate::agent::run_confine(arguments);
    }
    if role.as_ref().is_some_and(|word| word == crate::git::keeper::ROLE) {
        return crate::git::keeper::keep(arguments);
    }
    if role.is_some_and(|word| word == "end-user") {
        return crate::agent::run_end_user(arguments);
    }
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = Err(error).context("cannot start the runtime");
            return exit::report(error, &Redactor::default());
        }
    };
    let mut redactor = Redactor::default();
    let result = runtime.block_on(run(cli, &mut redactor));
    // Threads that wait for standard input or a slow disk must not hold up the end.
    runtime.shutdown_background();
    exit::report(result, &redactor)
}

async fn run(cli: Cli, redactor: &mut Redactor) -> anyhow::Result<()> {
    let output = Output::new(cli.json);
    let host = Host::system();
    let command = match cli.command {
        // These two are for finding out what is wrong with the settings.
        Command::Doctor => return doctor::run(&host, &output).await,
        Command::Health(args) => return health::run(&args, &host, &output).await,
        // And these bring their own.
        Command::Demo(args) => {
            let args = demo::DemoArgs { json: output.is_json(), ..args };
            return demo::run(args, &host, Clock::system()).await;
        }
        Command::Dev(args) => return demo::dev(args, &host, Clock::system()).await,
        Command::Bench(args) => return bench::run(args, &host, &output).await,
        command => command,
    };
    let config = Config::load(&host)?;
    *redactor = Redactor::new(config.secrets());
    let output = output.without(redactor.clone());
    let audience = match &command {
        Command::Worker => Audience::Service,
        _ => Audience::Person,
    };
    // Commands come and go: each a series of its own would be no use to anybody.
    let worker_id = Uuid::new_v4();
    let instance = (audience == Audience::Service).then_some(worker_id);
    let telemetry = telemetry::init(&config, audience, instance)?;
    let span = tracing::info_span!("cli.command");
    if let Some(traceparent) = &config.traceparent {
        telemetry::link_or_parent(&span, traceparent);
    }
    let result = match command {
        // Its orders have traces of their own.
        Command::Worker => {
            Box::pin(worker::run(config, worker_id, telemetry.metrics().clone())).await
        }
        command => dispatch(command, config, &output).instrument(span).await,
    };
    // Also when the command failed: its last spans say why.
    telemetry.shutdown().await;
    result
}

async fn dispatch(command: Command, config: Config, output: &Output) -> anyhow::Result<()> {
    match command {
        Command::Migrate(args) => migrate::run(&args, &config, output).await,
        Command::Enqueue(args) => enqueue::run(args, &config, output).await,
        Command::List(args) => list::run(&args, &config, output).await,
        Command::Show(args) => show::run(&args, &config, output).await,
        Command::Logs(args) => logs::run(&args, &config, output).await,
        Command::Cancel(args) => cancel::run(&args, &config, output).await,
        Command::Requeue(args) => requeue::run(&args, &config, output).await,
        Command::Prompt(args) => prompt::run(args, &config, output).await,
        Command::Pause(args) => pause::pause(&args, &config, output).await,
        Command::Resume(args) => pause::resume(&args, &config, output).await,
        Command::Repository(args) => repository::run(&args, &config, output).await,
        Command::Gc(args) => gc::run(&args, &config, output).await,
        Command::Agent(command) => Box::pin(agent::run(command, &config, output)).await,
        Command::Config => config::run(&config, output),
        // Handled in `run`.
        Command::Health(_)
        | Command::Doctor
        | Command::Worker
        | Command::Demo(_)
        | Command::Dev(_)
        | Command::Bench(_) => Ok(()),
    }
}

/// Connections a command needs; it asks one thing at a time.
const COMMAND_CONNECTIONS: u32 = 2;

/// Opens the database for a command, which reads and writes it as it is: only `worker` and
/// `migrate` change the schema.
async fn open_store(config: &Config) -> anyhow::Result<Store> {
    let database = &config.database;
    let url = database.required_url()?;
    let pool = store::connect(url, database.mode, COMMAND_CONNECTIONS).await?;
    store::schema_state(&pool).await?.check()?;
    Ok(Store::new(pool))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_of_the_command_line_is_valid() {
        super::Cli::command().debug_assert();
    }
}
