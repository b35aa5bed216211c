//! `archon-awo agent try`: runs the configured agent once, for one step, over a copy of a repository.

use std::{
    fmt::Write as _,
    io::IsTerminal,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use chrono::DateTime;
use clap::builder::PossibleValuesParser;
use console::style;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    log_view::LogView,
    output::{Output, plain, seconds},
    words,
};
use crate::{
    agent::{OutputChunk, OutputStream},
    clock::Clock,
    config::{self, Config},
    demo::Folder,
    domain::{ModelUsage, RemoteRules, RepositoryUrl, StepName},
    exit::CommandError,
    shutdown::Shutdown,
    store::LogChunk,
    workflow::trial::{Answer, Trial, TrialReport},
};

/// The steps that ask an agent.
const STEPS: [&str; 5] = ["planning", "execute", "prp-review", "commit", "create-pr"];
/// What is ordered when nothing is said.
const REQUEST: &str = "Add a file NOTES.md with one sentence about this repository.";
/// Pieces of output that may wait for a slow terminal.
const BACKLOG: usize = 32;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Run the configured agent for one step, as a worker would, and show what the step makes of it.
    ///
    /// It works on a copy of what is committed in the repository, in a temporary folder: no database is needed,
    /// nothing is pushed, and your own files are not touched. docs/agents.md says what each step expects.
    /// Exit code 0 when the step would go on, 5 when it would fail.
    Try(TryArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct TryArgs {
    /// The step whose question the agent is asked; create-branch asks none.
    #[arg(long, value_parser = PossibleValuesParser::new(STEPS))]
    step: String,
    /// The repository: a folder, or an address as an order names it.
    #[arg(long, value_name = "FOLDER|URL")]
    repository: String,
    /// What is ordered, in words; `-` reads it from standard input, and so does a pipe without this option.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Work in this folder and leave it there; a second try goes on with its checkout, plan and conversation.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Leave the temporary folder there, and say where it is.
    #[arg(long)]
    keep: bool,
}

pub(super) async fn run(command: Command, config: &Config, output: &Output) -> anyhow::Result<()> {
    let Command::Try(args) = command;
    config::check_agent(config).map_err(|problem| config::NotRunnable(vec![problem]))?;
    let step: StepName = args.step.parse()?;
    let url = address(&args.repository, &config.remotes)?;
    let request = request(args.prompt).await?;
    let place = match &args.folder {
        Some(folder) => Folder::given(folder)?,
        None => Folder::temporary("try", args.keep)?,
    };
    let trial =
        Trial { order: "wo-try".parse()?, step, url, request, folder: place.path().to_owned() };
    let report = Box::pin(supervised(&trial, config, output)).await?;
    if output.is_json() {
        output.document(&document(config, &trial, &report, &place))?;
    } else {
        for line in summary(config, &report, &place) {
            output.line(line)?;
        }
    }
    match report.failure() {
        None => Ok(()),
        Some((class, message)) => {
            Err(CommandError::AgentFailed { class: class.as_str(), message }.into())
        }
    }
}

/// The repository as git is told of it. A folder of this machine is fine here: nothing is pushed.
fn address(repository: &str, rules: &RemoteRules) -> anyhow::Result<RepositoryUrl> {
    let rules = RemoteRules { allow_local: true, ..rules.clone() };
    let path = Path::new(repository);
    if path.is_dir() {
        let path = path.canonicalize().with_context(|| format!("cannot open {repository}"))?;
        return Ok(RepositoryUrl::parse(&format!("file://{}", path.display()), &rules)?);
    }
    if repository.starts_with(['/', '.', '~']) {
        return Err(CommandError::NoRepository(repository.to_owned()).into());
    }
    Ok(RepositoryUrl::parse(repository, &rules)?)
}

async fn request(prompt: Option<String>) -> anyhow::Result<String> {
    let piped = !std::io::stdin().is_terminal();
    match prompt {
        Some(prompt) => words::read(prompt, "prompt").await,
        None if piped => match words::read("-".to_owned(), "prompt").await {
            Ok(words) => Ok(words),
            // Nothing was piped in: a script that says nothing.
            Err(_) => Ok(REQUEST.to_owned()),
        },
        None => Ok(REQUEST.to_owned()),
    }
}

/// Runs the trial; the first signal ends the agent with all it started, the second one this command as well.
async fn supervised(
    trial: &Trial,
    config: &Config,
    output: &Output,
) -> anyhow::Result<TrialReport> {
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
    let clock = Clock::system();
    let (sender, chunks) = mpsc::channel(BACKLOG);
    let show = show(chunks, trial.step, &clock, output);
    let run = trial.run(config, &clock, shutdown.soft.clone(), sender);
    let both = async {
        let (report, shown) = tokio::join!(run, show);
        shown?;
        Ok(report?)
    };
    let report: anyhow::Result<TrialReport> = tokio::select! {
        report = both => report,
        () = shutdown.hard.cancelled() => Err(CommandError::Interrupted.into()),
    };
    let report = report?;
    if shutdown.is_stopping() { Err(CommandError::Interrupted.into()) } else { Ok(report) }
}

/// Shows what the agent prints, as `archon-awo logs` does, by the time since its start.
async fn show(
    mut chunks: mpsc::Receiver<OutputChunk>,
    step: StepName,
    clock: &Clock,
    output: &Output,
) -> std::io::Result<()> {
    let mut view = LogView::new(output.redactor());
    let began = clock.now();
    while let Some(chunk) = chunks.recv().await {
        if output.is_json() {
            continue;
        }
        let stream = match chunk.stream {
            OutputStream::Stdout => "stdout",
            OutputStream::Stderr => "stderr",
        };
        let chunk = LogChunk {
            seq: 0,
            step_name: Some(step.to_string()),
            run_id: None,
            stream: stream.to_owned(),
            data: chunk.data,
            created_at: DateTime::UNIX_EPOCH + (clock.now() - began),
        };
        for line in view.lines(&chunk) {
            output.line(line)?;
        }
    }
    view.last_lines().into_iter().try_for_each(|line| output.line(line))
}

/// The report for people.
fn summary(config: &Config, report: &TrialReport, place: &Folder) -> Vec<String> {
    let run = &report.run;
    let row = |name: &str, value: String| format!("{} {value}", style(format!("{name:<10}")).dim());
    let verdict = match report.failure() {
        None => style("the step would go on").green().to_string(),
        Some((class, message)) => style(format!("{class}: {}", plain(&message))).red().to_string(),
    };
    let mut lines = vec![String::new(), row("verdict", verdict)];
    let answer = match &report.answer {
        Ok(answer) => described(answer),
        Err(reason) => vec![plain(reason)],
    };
    lines.extend(answer.into_iter().enumerate().map(|(at, line)| {
        let name = if at == 0 { "answer" } else { "" };
        row(name, line)
    }));
    let changes = &report.changes;
    lines.push(row(
        "files",
        format!(
            "{} changed, +{} -{}",
            changes.files_changed, changes.insertions, changes.deletions
        ),
    ));
    lines.extend(report.files.iter().map(|name| row("", plain(name))));
    if let Some(refused) = &changes.refused {
        lines.push(row("", style(plain(refused)).yellow().to_string()));
    }
    lines.push(row("usage", used(&run.usage.consumed(&[]).total())));
    lines.push(row("took", seconds(run.duration.as_secs_f64())));
    if let Some(isolation) = &run.isolation {
        lines.push(row("shut in", isolation.to_string()));
    }
    let exit = match run.exit.map(|exit| (exit.code, exit.signal)) {
        Some((Some(code), _)) => format!("exit code {code}"),
        Some((None, Some(signal))) => format!("signal {signal}"),
        _ => "was not seen".to_owned(),
    };
    lines.push(row("ended", exit));
    lines.push(row("agent", format!("{} for {}", config.agent.kind.as_str(), report.task)));
    if place.is_kept() {
        lines.push(row("checkout", report.checkout.display().to_string()));
    }
    lines
}

/// An answer as its step understands it.
fn described(answer: &Answer) -> Vec<String> {
    let text = match answer {
        Answer::Plan(plan) => plan.clone(),
        Answer::Report(text) if text.is_empty() => "none, which is fine".to_owned(),
        Answer::Report(text) => text.clone(),
        Answer::CommitMessage(message) => message.clone(),
        Answer::PullRequest { title, body } => format!("{title}\n\n{body}"),
        Answer::Review(review) => {
            let word = if review.passed { "passed" } else { "not passed" };
            let mut text = format!("{word}: {}", review.summary);
            for issue in &review.issues {
                let place = issue.file.as_deref().unwrap_or("-");
                // Writing to a String cannot fail.
                let _ = write!(text, "\n{:?} {place}: {}", issue.severity, issue.description);
            }
            text
        }
    };
    plain(&text).lines().map(str::to_owned).collect()
}

fn used(usage: &ModelUsage) -> String {
    let cost = match usage.cost_usd {
        usd if usd > 0.0 => format!("${usd:.4}"),
        _ => "cost not told".to_owned(),
    };
    format!(
        "{} tokens in, {} out, {} from the cache, {} into it, {cost}",
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_creation_tokens()
    )
}

/// The report for programs.
fn document(config: &Config, trial: &Trial, report: &TrialReport, place: &Folder) -> Value {
    let run = &report.run;
    let used = run.usage.consumed(&[]).total();
    let failure = report.failure();
    json!({
        "agent": config.agent.kind.as_str(),
        "step": trial.step,
        "task": report.task.as_str(),
        "repository_url": trial.url.clone_url(),
        "ok": failure.is_none(),
        "error_class": failure.as_ref().map(|(class, _)| class.as_str()),
        "error_message": failure.map(|(_, message)| message),
        "answer": report.answer.as_ref().ok(),
        "text": run.text,
        "files": report.files,
        "files_changed": report.changes.files_changed,
        "insertions": report.changes.insertions,
        "deletions": report.changes.deletions,
        "usage": {
            "input_tokens": used.input_tokens,
            "output_tokens": used.output_tokens,
            "cache_read_tokens": used.cache_read_tokens,
            "cache_creation_tokens": used.cache_creation_tokens(),
            "cost_usd": used.cost_usd,
        },
        "exit_code": run.exit.and_then(|exit| exit.code),
        "exit_signal": run.exit.and_then(|exit| exit.signal),
        "duration_seconds": run.duration.as_secs_f64(),
        "tree_empty_after_seconds": run.tree_empty_after.as_ref().map(Duration::as_secs_f64),
        "isolation": run.isolation.as_ref().map(ToString::to_string),
        "session_id": run.session,
        "resumed": run.resumed,
        "checkout": place.is_kept().then(|| report.checkout.display().to_string()),
    })
}
