//! `archon-awo demo` as a person runs it: orders become pull requests, also when a replica dies, and
//! nothing is left behind. Needs git and the PostgreSQL server programs.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Output, Stdio},
    time::Duration,
};

use archon_awo::{config::Host, process};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// The search path of the demos: that of this test, which holds git and `pg_config`.
fn search_path() -> OsString {
    let variables = Host::system().variables;
    variables.get(OsStr::new("PATH")).cloned().unwrap_or_else(|| "/usr/bin:/bin".into())
}

/// A folder for temporary files that the demo's Postgres may pass through when root runs it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    folder
}

fn start(folder: &Path, arguments: &[&str]) -> Child {
    process::blocking_command(env!("CARGO_BIN_EXE_archon-awo"))
        .env("PATH", search_path())
        .env("HOME", folder)
        .env("TMPDIR", folder)
        .args(["demo", "--scripted", "--json"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs a demo that is to end well, and reads its report.
fn report(folder: &Path, arguments: &[&str]) -> Value {
    let output = start(folder, arguments).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", words(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn words(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Processes that name `folder` in their arguments or their environment.
fn processes_of(folder: &Path) -> Vec<String> {
    let needle = folder.to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let names = ["cmdline", "environ"].into_iter().any(|name| {
            let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains(needle)
        });
        if names {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}

fn assert_nothing_is_left(folder: &Path) {
    let left = processes_of(folder);
    assert!(left.is_empty(), "still running: {left:#?}");
    let left: Vec<_> = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "still there: {left:?}");
}

fn assert_counts(report: &Value, orders: u64) {
    let counts = &report["counts"];
    for name in ["orders", "completed", "branches", "pull_requests"] {
        assert_eq!(counts[name], orders, "{name} in {report:#}");
    }
    assert_eq!(counts["broken_invariants"], 0, "{report:#}");
    assert_eq!(report["problems"], serde_json::json!([]));
}

#[test]
fn one_order_becomes_a_pull_request_and_nothing_is_left() {
    let folder = folder();
    let report = report(folder.path(), &[]);
    assert_counts(&report, 1);
    assert_eq!(report["agent"], "scripted agent, not a model");
    let order = &report["orders"][0];
    assert_eq!(order["pull_request_title"], "Add the command count");
    let steps: Vec<_> =
        order["steps"].as_array().unwrap().iter().map(|step| &step["step"]).collect();
    assert_eq!(
        steps,
        ["create-branch", "planning", "execute", "prp-review", "commit", "create-pr"]
    );
    assert_nothing_is_left(folder.path());
}

#[test]
fn six_orders_survive_the_death_of_one_of_three_replicas() {
    let folder = folder();
    let report = report(folder.path(), &["--replicas", "3", "--orders", "6", "--kill-one"]);
    assert_counts(&report, 6);
    let kill = &report["kill"];
    let resumed = kill["orders"].as_array().unwrap();
    assert!(!resumed.is_empty(), "{report:#}");
    for order in resumed {
        assert_eq!(order["interrupted_step"], order["resumed_step"], "{report:#}");
        assert_ne!(order["worker_id"], kill["worker_id"], "{report:#}");
        assert!(order["seconds"].as_f64().unwrap() > 0.0, "{report:#}");
    }
    for order in report["orders"].as_array().unwrap() {
        let steps = order["steps"].as_array().unwrap();
        assert_eq!(steps.iter().filter(|step| step["success"] == true).count(), 6, "{order:#}");
    }
    assert_nothing_is_left(folder.path());
}

#[test]
fn ctrl_c_takes_everything_down() {
    let folder = folder();
    let mut demo = start(folder.path(), &["--replicas", "2", "--orders", "2"]);
    let mut lines = BufReader::new(demo.stderr.take().unwrap()).lines();
    let seen = lines.by_ref().map(Result::unwrap).find(|line| line.contains("execute on"));
    assert!(seen.is_some(), "the demo ended before execute: {:?}", demo.wait());
    // Postgres and at least one replica.
    assert!(processes_of(folder.path()).len() > 2);
    kill(Pid::from_raw(demo.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    lines.for_each(drop);
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    wait_until(|| processes_of(folder.path()).is_empty());
    assert_nothing_is_left(folder.path());
}

/// Waits for what ends by itself: the guard of an agent whose worker was just stopped.
fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..200 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_demo_that_cannot_run_says_why_and_leaves_nothing() {
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], i32, &'a str);
    let cases: [Case; 2] = [
        (&[("AWO_PG_BIN", "/nowhere")], &[], 1, "AWO_PG_BIN is \"/nowhere\": expected"),
        (&[], &["--kill-one"], 2, "--kill-one needs --replicas 2 or more"),
    ];
    for (variables, arguments, code, sentence) in cases {
        let folder = folder();
        let output = process::blocking_command(env!("CARGO_BIN_EXE_archon-awo"))
            .env("PATH", search_path())
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path())
            .envs(variables.iter().copied())
            .arg("demo")
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", words(&output));
        assert!(words(&output).contains(sentence), "{}", words(&output));
        assert_nothing_is_left(folder.path());
    }
}
