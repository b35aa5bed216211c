//! The queue under faults: real workers, a real Postgres, real git remotes, and everything that can
//! happen to them, drawn from a seed. See `docs/reliability.md`.
//!
//! Three programs in one: the tests (`cargo nextest run --test faults`), the long run (`make
//! faults`), and the agent that the workers start.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests")]

mod agent;
mod audit;
mod cluster;
mod defaults;
mod orders;
mod place;
mod plan;
mod pooler;
mod proxy;
mod remote;
mod replica;
mod report;
#[path = "../support/small_volume.rs"]
mod small_volume;
mod storm;
mod verdict;
mod volume;
mod watched;
mod witness;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;

use crate::storm::Options;

/// Faults of a run that is one of the tests.
const SHORT: usize = 40;

#[derive(Parser)]
#[command(
    name = "faults",
    about = "Injects faults into running workers and judges what comes of it"
)]
enum Command {
    /// Faults at random, with short timings.
    Run(Options),
    /// The promises about seconds, with default timings.
    Defaults(defaults::Options),
}

/// The tests, by name. They are not functions of the test framework, because the agents and the long
/// run are this program too.
const TESTS: [(&str, fn()); 8] = [
    ("a_plan_is_drawn_from_its_seed", plan::check),
    ("the_witness_tells_an_overlap_from_a_change_of_owner", witness::check),
    ("the_audit_sees_stale_writes_and_repeated_steps", || block_on(audit::check())),
    ("the_proxy_holds_back_loses_and_cuts", || block_on(proxy::check())),
    ("the_volume_can_be_filled", || block_on(volume::check())),
    ("a_worker_that_loses_a_task_ends_and_says_so", || block_on(watched::check())),
    ("no_promise_is_broken_under_faults", || short(false)),
    ("no_promise_is_broken_behind_a_pooler", || short(true)),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["agent", port, folder] => agent::run(port, folder),
        ["agent-child", port] => agent::child(port),
        ["agent-survivor", ref words @ ..] => agent::survivor(words),
        ["worker-losing", task, how, signal] => watched::worker(task, how, signal),
        // Roles of the product that such a worker starts: this program is its own.
        ["shim" | "confine" | "watchman" | "keep-git" | "reach", ..] => archon_awo::cli::main(),
        ["run" | "defaults", ..] | ["--help"] => end(match Command::parse() {
            Command::Run(options) => block_on(storm::run(options)),
            Command::Defaults(options) => block_on(defaults::run(options)),
        }),
        _ if words.contains(&"--list") => {
            // What nextest asks for; there are no ignored ones.
            let shown = TESTS.iter().filter(|_| !words.contains(&"--ignored"));
            shown.for_each(|(name, _)| println!("{name}: test"));
            ExitCode::SUCCESS
        }
        _ => {
            let wanted = |name: &str| {
                let names: Vec<&&str> = words.iter().filter(|w| !w.starts_with("--")).collect();
                names.is_empty() || names.iter().any(|w| name.contains(**w))
            };
            // A test that fails panics, and so does the program.
            TESTS.iter().filter(|(name, _)| wanted(name)).for_each(|(_, test)| test());
            ExitCode::SUCCESS
        }
    }
}

fn end(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    // One thread: processes that end with their parent end with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(work)
}

fn short(pooler: bool) {
    let options = Options {
        faults: SHORT,
        seed: None,
        replicas: 3,
        orders: 8,
        every: Duration::from_secs(1),
        pooler,
        honest: false,
        freezer: "ptrace".to_owned(),
        report: None::<PathBuf>,
        keep: false,
    };
    if let Err(error) = block_on(storm::run(options)) {
        panic!("{error:#}");
    }
}
