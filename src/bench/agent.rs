//! What an agent's surroundings cost: its start shut in, beside its start by itself, and what keeps
//! secrets out of its log.

use std::{
    hint::black_box,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};

use super::{BenchReport, Machine, Measurement, Progress, Scratch, agent_load, median, real};
use crate::{agent, clock::Clock, config::IsolationConfig, domain::Redactor, process};

/// The program that does nothing.
const AGENT: &str = "/bin/true";
/// Live secrets of an order: its tokens and keys, and the values its repository is given.
const SECRETS: u64 = 10;
/// How output reaches the redactor.
const CHUNK: usize = 64 << 10;
/// Bytes of output, of which each round reads all.
const OUTPUT: usize = 8 << 20;

/// What to measure with.
#[derive(Debug, Clone)]
pub struct AgentBench {
    /// This program, which shuts itself in before it becomes the agent.
    pub program: PathBuf,
    /// An existing folder; a sandbox is made in it and removed again.
    pub folder: PathBuf,
    /// Starts per value, and readings of the log; the median counts.
    pub rounds: usize,
    /// Processes that a busy agent starts, one after the other.
    pub starts: usize,
    /// Runs of a busy agent per value, each beside one that is not shut in.
    pub load_rounds: usize,
    /// A command line of the user's own that is measured in the same way.
    pub command: Option<String>,
}

impl AgentBench {
    /// 200 rounds, and three of 20,000 starts.
    pub fn new(program: PathBuf) -> Self {
        let folder = std::env::temp_dir();
        Self { program, folder, rounds: 200, starts: 20_000, load_rounds: 3, command: None }
    }
}

/// Runs every measurement; takes some minutes.
pub async fn run(
    plan: &AgentBench,
    clock: &Clock,
    progress: Progress<'_>,
) -> anyhow::Result<BenchReport> {
    let folder = Scratch::make(&plan.folder)?;
    let mut results =
        vec![start(plan, folder.path(), clock, progress)?, redaction(plan, clock, progress)?];
    results.extend(agent_load::run(plan, folder.path(), clock, progress).await?);
    Ok(BenchReport { machine: Machine::here(&plan.folder), database: None, results })
}

/// An agent that does nothing, shut in, against the same by itself.
fn start(
    plan: &AgentBench,
    folder: &Path,
    clock: &Clock,
    progress: Progress<'_>,
) -> anyhow::Result<Measurement> {
    let config = IsolationConfig::default();
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        (progress)("start of an agent", round, plan.rounds);
        let begin = clock.now();
        agent::run_shut_in(&plan.program, &config, folder, Path::new(AGENT))
            .map_err(anyhow::Error::msg)?;
        ours.push(milliseconds(clock.now() - begin));
        let begin = clock.now();
        let ended = process::blocking_command(AGENT).status().context(AGENT)?;
        floor.push(milliseconds(clock.now() - begin));
        ensure!(ended.success(), "{AGENT}: {ended}");
    }
    Ok(Measurement::new("agent_start", "ms", median(&ours), median(&floor)))
}

/// The output of an agent on its way to the log, with live secrets to look for.
fn redaction(
    plan: &AgentBench,
    clock: &Clock,
    progress: Progress<'_>,
) -> anyhow::Result<Measurement> {
    let secrets: Vec<String> = (0..SECRETS)
        .map(|n| format!("Key{n}x{:016x}AbCdEf", (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
        .collect();
    let output = output(&secrets[0]);
    let redactor = Redactor::new(secrets.into_iter().map(Into::into));
    let mut speeds = Vec::new();
    for round in 0..plan.rounds {
        (progress)("redaction", round, plan.rounds);
        let begin = clock.now();
        let mut stream = redactor.stream();
        let mut length = 0;
        for chunk in output.chunks(CHUNK) {
            length += black_box(stream.push(chunk)).len();
        }
        length += black_box(stream.finish()).len();
        let seconds = (clock.now() - begin).as_secs_f64();
        ensure!(length < output.len(), "the redactor found no secret");
        speeds.push(real(output.len() as u64) / 1e6 / seconds);
    }
    Ok(Measurement::alone("redaction", "MB/s", median(&speeds)))
}

/// What an agent prints: its words and its tools' as lines of JSON, now and then with a secret.
fn output(secret: &str) -> Vec<u8> {
    let mut output = String::new();
    let mut number = 0;
    while output.len() < OUTPUT {
        number += 1;
        let shown = if number % 1000 == 0 { secret } else { "none" };
        let lines = [
            format!(
                r#"{{"type":"assistant","message":{{"content":[{{"type":"tool_use","id":"toolu_{number:020}","name":"Bash","input":{{"command":"cargo test --locked -p parser{number}","description":"Run the tests of the parser"}}}}]}},"session_id":"7c0e7c1e-3f63-4f5e-9d4f-{number:012}"}}"#
            ),
            format!(
                r#"{{"type":"user","message":{{"content":[{{"type":"tool_result","tool_use_id":"toolu_{number:020}","content":"   Compiling parser v0.4.{number}\n     Running unittests src/lib.rs (target/debug/deps/parser-4c1f09d2a7b3e856)\ntest line::tests::an_empty_line_is_kept ... ok (0.013 s)\ntest line::tests::a_long_line_is_cut ... ok (0.009 s)\nkey: {shown}\n","is_error":false}}]}}}}"#
            ),
            format!(
                r#"{{"type":"assistant","message":{{"content":[{{"type":"text","text":"All {number} tests pass. The parser now keeps empty lines, and `src/line.rs` says why; I look at the callers next."}}]}}}}"#
            ),
        ];
        for line in lines {
            output.push_str(&line);
            output.push('\n');
        }
    }
    output.into_bytes()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
