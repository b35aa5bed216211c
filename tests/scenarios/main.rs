//! Scenarios: orders that the real Claude CLI carries out, with a fake model that follows a script in
//! a YAML file. Each file is a test for each version of the CLI; see CONTRIBUTING.md.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests")]

#[path = "../support/claude_cli.rs"]
mod claude_cli;
mod database;
mod director;
mod format;
#[path = "../worker/harness.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "the worker's tests use all of it")]
mod harness;
mod judge;
#[path = "../support/messages_api.rs"]
mod messages_api;
mod play;
#[path = "../worker/programs.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "the worker's tests use all of it")]
mod programs;
mod report;
#[path = "../worker/schedules.rs"]
mod schedules;
#[path = "../support/small_volume.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "the worker's tests use all of it")]
mod small_volume;
mod values;

use std::{path::Path, process::ExitCode};

use libtest_mimic::{Arguments, Trial};

use crate::{
    claude_cli::VERSIONS,
    format::{Case, Scenario, find},
};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios");

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let cases = find(Path::new(FOLDER));
    let mut trials: Vec<Trial> = cases.iter().flat_map(trials_of).collect();
    trials.push(Trial::test("an_unknown_key_is_named_with_its_place", || {
        an_unknown_key_is_named_with_its_place();
        Ok(())
    }));
    let conclusion = libtest_mimic::run(&arguments, trials);
    report::print();
    conclusion.exit_code()
}

/// A test for each version; those that are not for every day are ignored ones, which `make test-claude`
/// asks for.
fn trials_of(case: &Case) -> Vec<Trial> {
    let trial = |(number, (version, _)): (usize, &(&'static str, &str))| {
        let version = *version;
        let everyday = match &case.scenario {
            Ok(scenario) if !scenario.versions.is_empty() => scenario
                .versions
                .iter()
                .any(|wanted| wanted == version)
                .then_some(scenario.everyday)?,
            Ok(scenario) => scenario.everyday && number == 0,
            // A file that cannot be read is told of every day.
            Err(_) => true,
        };
        let (name, scenario) = (case.name.clone(), case.scenario.clone());
        let test = move || Ok(try_one(&name, version, &scenario?)?);
        Some(Trial::test(format!("{}@{version}", case.name), test).with_ignored_flag(!everyday))
    };
    VERSIONS.iter().enumerate().filter_map(trial).collect()
}

/// Plays a scenario with a version of the CLI; what differs is the error.
fn try_one(name: &str, version: &str, scenario: &Scenario) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let differences = runtime.unwrap().block_on(play_and_judge(name, version, scenario));
    let known = scenario.known_fault.get(version);
    report::note(name, version, &differences, known.is_some());
    match (differences.is_empty(), known) {
        (true, None) => Ok(()),
        (false, None) => Err(format!("{}\n{}", scenario.about, differences.join("\n"))),
        (true, Some(fault)) => Err(format!(
            "it passes, although a fault is known to break it: take `known_fault` away ({fault})"
        )),
        (false, Some(fault)) => {
            println!("{name}@{version} fails, as is known: {fault}");
            Ok(())
        }
    }
}

async fn play_and_judge(name: &str, version: &str, scenario: &Scenario) -> Vec<String> {
    let database = database::Database::create().await;
    let mut play = play::Play::prepare(scenario, version, database.pool.clone()).await;
    let ended = tokio::time::timeout(scenario.limit.0, play.run(scenario)).await;
    let mut differences = judge::differences(&play, scenario, version).await;
    if ended.is_err() {
        let limit = humantime::format_duration(scenario.limit.0);
        differences
            .insert(0, format!("the order, or what is done to it, was not over after {limit}"));
    }
    if !differences.is_empty() {
        // At once, for a run of all of them takes a while.
        println!("{name}@{version} differs:\n  {}", differences.join("\n  "));
        let kept = report::keep(name, version, &play, &differences);
        differences.push(format!("what is known of it: {}", kept.display()));
    }
    drop(play);
    database.remove().await;
    differences
}

fn an_unknown_key_is_named_with_its_place() {
    let text = "about: a typing mistake\nexpect:\n  status: completed\n  sentense: none\n";
    let error = format::parse(text).unwrap_err();
    assert!(error.contains("unknown field `sentense`") && error.contains("line 4"), "{error}");
    let error = format::parse("about: x\nexpect: {status: failed, sentence: '('}\n").unwrap_err();
    assert!(error.contains("regex") && error.contains("line 2"), "{error}");
}
