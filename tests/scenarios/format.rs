//! The form of a scenario file. An unknown key is refused with its file, line and column.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;

use crate::values::{Patterns, Text, Time};

/// What happens, and what must come of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The rule that is tried, as a sentence.
    pub about: String,
    /// Whether `make test` runs it too, with the newest version.
    #[serde(default)]
    pub everyday: bool,
    /// The only versions of the CLI for which it is meant; all when empty.
    #[serde(default)]
    pub versions: Vec<String>,
    /// By version of the CLI: the fault of the product that is known to break it. Then it must fail.
    #[serde(default)]
    pub known_fault: BTreeMap<String, String>,
    /// Longest time for all of it, on a machine that has more to do.
    #[serde(default = "three_minutes")]
    pub limit: Time,
    /// The steps, separated by blanks.
    #[serde(default = "without_review")]
    pub steps: String,
    /// What is ordered.
    #[serde(default = "say_hello")]
    pub request: String,
    /// More files of the repository, by path.
    #[serde(default)]
    pub repository: BTreeMap<String, String>,
    /// Whether the repository's own settings of the agent count.
    #[serde(default)]
    pub trusted: bool,
    /// Settings of the worker.
    #[serde(default)]
    pub settings: BTreeMap<String, Text>,
    /// Whether the worker has a key for the model; without one it has none at all.
    #[serde(default = "yes")]
    pub key: bool,
    /// The environment of the CLI, set over what the product gives it; `null` takes a variable away.
    #[serde(default)]
    pub cli_env: BTreeMap<String, Option<Text>>,
    /// What the model says, by the kind of the prompt, or by words of it. Each request takes the next
    /// turn; the last one is said again and again.
    #[serde(default)]
    pub turns: BTreeMap<String, Vec<Turn>>,
    /// What is done meanwhile, one after the other.
    #[serde(default)]
    pub acts: Vec<Act>,
    /// What must come of it.
    pub expect: Expect,
}

/// One answer of the model.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Turn {
    /// Thoughts before everything else.
    pub thinking: Option<String>,
    /// Words.
    pub text: Option<String>,
    /// How often the words are said.
    pub repeat: Option<usize>,
    /// A command for the tool Bash ...
    pub bash: Option<String>,
    /// ... its timeout in milliseconds ...
    pub timeout: Option<u64>,
    /// ... and whether it is sent to the background.
    pub background: bool,
    /// Files to write, by path in the repository or absolute.
    pub write: BTreeMap<String, String>,
    /// Calls of any tools.
    pub tools: Vec<Tool>,
    /// Another `stop_reason`.
    pub stop: Option<String>,
    /// What it consumes.
    pub usage: Usage,
    /// Time before the answer begins.
    pub delay: Option<Time>,
    /// Time before each word.
    pub pace: Option<Time>,
    /// The connection is cut after that many words.
    pub cut: Option<usize>,
    /// An error of this type is sent before the cut.
    pub broken: Option<String>,
    /// Nothing follows after that many words.
    pub stall: Option<usize>,
    /// It never answers.
    pub hang: bool,
    /// It refuses.
    pub error: Option<HttpError>,
    /// How many requests get this turn; one when absent ...
    pub times: Option<usize>,
    /// ... or for how long, from the first one on.
    pub lasts: Option<Time>,
}

/// A call of a tool.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its input.
    #[serde(default)]
    pub input: Value,
}

/// Tokens of one answer.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    /// Input that no cache held.
    pub input: u64,
    /// Output.
    pub output: u64,
    /// Input read from the cache.
    pub cache_read: u64,
    /// Input written to the cache for five minutes.
    pub cache_write_5m: u64,
    /// Input written to the cache for an hour.
    pub cache_write_1h: u64,
}

impl Default for Usage {
    fn default() -> Self {
        Self { input: 100, output: 20, cache_read: 0, cache_write_5m: 0, cache_write_1h: 0 }
    }
}

/// A refused request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpError {
    /// The status.
    pub status: u16,
    /// `error.type`.
    #[serde(default = "api_error")]
    pub kind: String,
    /// `error.message`.
    #[serde(default)]
    pub message: String,
    /// The whole body instead.
    #[serde(default)]
    pub body: Option<String>,
    /// More headers.
    #[serde(default)]
    pub headers: BTreeMap<String, Text>,
}

/// Something that is done at a moment.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Act {
    /// The model has been asked by a prompt of this kind ...
    #[serde(default)]
    pub asked: Option<String>,
    /// ... or has answered one in full ...
    #[serde(default)]
    pub answered: Option<String>,
    /// ... that often.
    #[serde(default = "once")]
    pub times: usize,
    /// The order has this status.
    #[serde(default)]
    pub status: Option<String>,
    /// A step has failed with this class.
    #[serde(default)]
    pub class: Option<String>,
    /// The log of the order has this event.
    #[serde(default)]
    pub event: Option<String>,
    /// The checkout has this file.
    #[serde(default)]
    pub file: Option<String>,
    /// What is done.
    #[serde(rename = "do")]
    pub deed: Deed,
    /// What is said by `prompt`.
    #[serde(default)]
    pub words: Option<String>,
    /// Where `requeue` begins.
    #[serde(default)]
    pub from: Option<String>,
    /// How long `pause` lasts.
    #[serde(default, rename = "for")]
    pub lasts: Option<Time>,
}

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// Cancels the order.
    Cancel,
    /// SIGTERM to the worker; another one starts when it has ended.
    Drain,
    /// SIGKILL to the worker; another one starts.
    Kill,
    /// SIGKILL to the CLI itself.
    KillCli,
    /// SIGINT to the CLI itself.
    InterruptCli,
    /// Requeues the order.
    Requeue,
    /// Says more to the order.
    Prompt,
    /// Stops the worker where it stands, for a time.
    Pause,
}

/// What must have come of it. What is not named is not asked for, but for the tokens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Status of the order.
    pub status: String,
    /// Its class, `none` for none.
    #[serde(default)]
    pub class: Option<String>,
    /// Patterns of its sentence.
    #[serde(default)]
    pub sentence: Patterns,
    /// Patterns that must not be in it.
    #[serde(default)]
    pub sentence_not: Patterns,
    /// Attempts of its job.
    #[serde(default)]
    pub attempts: Option<i32>,
    /// Files on the pushed branch; `null` for one that must not be there.
    #[serde(default)]
    pub files: BTreeMap<String, Option<String>>,
    /// Whether a branch was pushed and a pull request opened.
    #[serde(default)]
    pub delivered: Option<bool>,
    /// Patterns of the last commit's message.
    #[serde(default)]
    pub commit: Patterns,
    /// Patterns that must not be in it.
    #[serde(default)]
    pub commit_not: Patterns,
    /// Patterns of the pull request's page: title, then body.
    #[serde(default)]
    pub pull: Patterns,
    /// Patterns that must not be in it.
    #[serde(default)]
    pub pull_not: Patterns,
    /// Patterns of the plan.
    #[serde(default)]
    pub plan: Patterns,
    /// Patterns that must not be in it.
    #[serde(default)]
    pub plan_not: Patterns,
    /// Steps with attempt, outcome and class, in order.
    #[serde(default)]
    pub ran: Option<Vec<String>>,
    /// Patterns of the log's events, each a JSON object in a line.
    #[serde(default)]
    pub events: Patterns,
    /// Patterns that no event may match.
    #[serde(default)]
    pub events_not: Patterns,
    /// Patterns of the log as `archon-awo logs` shows it.
    #[serde(default)]
    pub log: Patterns,
    /// Patterns that must not be in it.
    #[serde(default)]
    pub log_not: Patterns,
    /// Patterns of what the model was told, by the kind of the prompt.
    #[serde(default)]
    pub told: BTreeMap<String, Patterns>,
    /// Patterns that must not be in it.
    #[serde(default)]
    pub told_not: BTreeMap<String, Patterns>,
    /// Requests to the model, by the kind of the prompt; `all` for the sum.
    #[serde(default)]
    pub requests: BTreeMap<String, usize>,
    /// Tokens and dollars of the order.
    #[serde(default)]
    pub bill: Bill,
    /// The step whose conversation is the order's `agent_session_id`.
    #[serde(default)]
    pub session: Option<String>,
}

/// How tokens and dollars are judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bill {
    /// Order and steps say what the fake served in full, to the token, and its price.
    #[default]
    Served,
    /// At least what was served in full: an answer that was begun counts or not.
    AtLeast,
    /// They are not judged.
    Any,
}

const fn three_minutes() -> Time {
    Time(Duration::from_mins(3))
}

const fn once() -> usize {
    1
}

const fn yes() -> bool {
    true
}

fn without_review() -> String {
    "create-branch planning execute commit create-pr".to_owned()
}

fn say_hello() -> String {
    "Say hello".to_owned()
}

fn api_error() -> String {
    "api_error".to_owned()
}

/// A scenario and where it was found.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its path below the folder, without its ending.
    pub name: String,
    /// What the file says, or why it cannot be read.
    pub scenario: Result<Scenario, String>,
}

/// All scenarios below a folder, by name.
pub fn find(folder: &Path) -> Vec<Case> {
    let (mut cases, mut pending) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|ending| ending == "yaml") {
                cases.push(read(folder, &path));
            }
        }
    }
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    cases
}

fn read(folder: &Path, path: &Path) -> Case {
    let below = path.strip_prefix(folder).unwrap();
    let shown = PathBuf::from("tests/scenarios").join(below);
    let text = fs::read_to_string(path).unwrap();
    let scenario = parse(&text).map_err(|error| format!("{}: {error}", shown.display()));
    Case { name: below.with_extension("").display().to_string(), scenario }
}

/// What a file says.
pub fn parse(text: &str) -> Result<Scenario, String> {
    let scenario: Scenario = serde_norway::from_str(text).map_err(|error| error.to_string())?;
    let known =
        |version: &str| crate::claude_cli::VERSIONS.iter().any(|(known, _)| *known == version);
    let named = scenario.versions.iter().chain(scenario.known_fault.keys());
    if let Some(version) = named.into_iter().find(|version| !known(version)) {
        return Err(format!("there is no version {version:?} of the CLI"));
    }
    match scenario.turns.iter().find(|(_, turns)| turns.is_empty()) {
        Some((kind, _)) => Err(format!("turns: {kind:?} has none")),
        None => Ok(scenario),
    }
}
