//! What a run of many scenarios leaves to read: a table, and the traces of those that differ.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use crate::{
    claude_cli::VERSIONS,
    play::{ORDER, Play},
};

/// Outcomes by scenario and version.
static OUTCOMES: Mutex<BTreeMap<String, BTreeMap<String, &'static str>>> =
    Mutex::new(BTreeMap::new());

/// Notes an outcome for the table.
pub fn note(name: &str, version: &str, differences: &[String], known: bool) {
    let word = match (differences.is_empty(), known) {
        (true, false) => "ok",
        (false, false) => "FAILS",
        (false, true) => "known",
        (true, true) => "PASSES",
    };
    let mut outcomes = OUTCOMES.lock().unwrap();
    outcomes.entry(name.to_owned()).or_default().insert(version.to_owned(), word);
}

/// Prints the table, of more than one scenario.
pub fn print() {
    let outcomes = OUTCOMES.lock().unwrap();
    if outcomes.len() < 2 {
        return;
    }
    let wide = outcomes.keys().map(String::len).max().unwrap_or_default();
    let versions = VERSIONS.map(|(version, _)| version);
    println!("{:wide$}  {}", "scenario", versions.map(|version| format!("{version:8}")).join("  "));
    for (name, by_version) in outcomes.iter() {
        let word = |version: &str| *by_version.get(version).unwrap_or(&"-");
        let words = versions.map(|version| format!("{:8}", word(version)));
        println!("{name:wide$}  {}", words.join("  "));
    }
}

/// Keeps what a scenario left, for people: what differs, the worker's log, the order's, what the model was sent.
pub fn keep(name: &str, version: &str, play: &Play, differences: &[String]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scenarios").join(version).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("differences.txt"), differences.join("\n")).unwrap();
    for entry in fs::read_dir(play.harness.folder()).unwrap().filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with("worker-") {
            let _ = fs::copy(entry.path(), folder.join(entry.file_name()));
        }
    }
    for (file, arguments) in [
        ("order.txt", &["show", ORDER][..]),
        ("log.txt", &["logs", ORDER]),
        ("log.json", &["logs", ORDER, "--json"]),
    ] {
        let (_, said) = play.harness.command(arguments);
        fs::write(folder.join(file), said).unwrap();
    }
    let kinds = play.kinds.lock().unwrap().clone();
    let requests = play.api.requests().into_iter().zip(kinds).zip(play.api.served());
    let lines = requests
        .map(|((request, kind), served)| format!("{kind} {served:?}\n{}\n", request["messages"]));
    fs::write(folder.join("requests.txt"), lines.collect::<String>()).unwrap();
    folder
}
