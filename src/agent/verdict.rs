//! Decides whether a run counts. The one place for it: an exit code, a result line or a signal
//! alone has each been seen to lie.

use std::time::Duration;

use chrono::{DateTime, Local, Utc};

use super::{
    conversation::{ProviderError, ResultLine},
    refusal::{Refusal, classify},
    report::{Exit, Failure},
    reset_time::until_reset,
};
use crate::{disk, domain::ErrorClass};

/// What we ourselves did to the run. Whatever it says after that is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intervention {
    /// It took longer than this.
    HardTimeout(Duration),
    /// It was silent for this long, with no tool running.
    Idle(Duration),
    /// Somebody asked for the end.
    Cancelled,
    /// Another replica may own the order now.
    LeaseLost,
    /// The provider refused the credential, and the agent went on trying.
    CredentialRefused,
    /// Its output could not be kept: the disk is full.
    DiskFull,
    /// It had given its result and did not exit; the result stands.
    ExitGrace,
    /// The process that supervised it died.
    ShimLost,
}

/// Everything the decision depends on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// Whether an agent of this kind always ends with a result line.
    pub needs_result: bool,
    /// How its process ended.
    pub exit: Option<Exit>,
    /// Its result line.
    pub result: Option<&'a ResultLine>,
    /// The provider's last error that no answer followed.
    pub provider_error: Option<&'a ProviderError>,
    /// When the provider's limit ends, in seconds since 1970.
    pub limit_resets_at: Option<u64>,
    /// The end of the run, in seconds since 1970.
    pub now: u64,
    /// What we did.
    pub intervention: Option<Intervention>,
    /// The end of its standard error.
    pub stderr: &'a str,
    /// What it printed or said last; used where it left no words on its standard error.
    pub stdout: &'a str,
    /// The kernel killed a process for memory while the agent ran.
    pub out_of_memory: bool,
    /// Our own log of the run could not be written because the disk is full, or the volume of the
    /// sandbox is full at the end: then nobody knows what the run could not write.
    pub disk_full: bool,
}

/// The verdict: fine only if exit 0, a result line, subtype `success` and no error. Whether a call of a tool
/// that was refused matters is seen by what the step delivers.
pub fn judge(evidence: &Evidence<'_>) -> Result<(), Failure> {
    match evidence.intervention {
        None | Some(Intervention::ExitGrace) if evidence.disk_full => return Err(full_disk()),
        None | Some(Intervention::ExitGrace) => {}
        Some(intervention) => return Err(stopped(intervention, evidence)),
    }
    let Some(result) = evidence.result else { return without_result(evidence) };
    if result.is_error || result.subtype != "success" {
        return Err(failed_result(result, evidence));
    }
    match evidence.exit {
        _ if evidence.intervention == Some(Intervention::ExitGrace) => Ok(()),
        Some(Exit { code: Some(0), .. }) => Ok(()),
        _ => Err(bad_exit(evidence)),
    }
}

/// Whether all there is to say against the run is that it has no result line: the agent lost its last words,
/// as CLI 2.1.138 does when they are not read fast enough.
pub fn answer_is_lost(evidence: &Evidence<'_>) -> bool {
    evidence.needs_result
        && evidence.result.is_none()
        && evidence.exit.is_some_and(|exit| exit.code == Some(0))
        && evidence.intervention.is_none()
        && evidence.provider_error.is_none()
        && !evidence.disk_full
}

/// Whether the run failed only because it should resume a conversation that is not there.
pub fn session_is_unknown(result: Option<&ResultLine>) -> bool {
    result.is_some_and(|result| {
        result.is_error && result.errors.iter().any(|e| e.starts_with("No conversation found"))
    })
}

fn stopped(intervention: Intervention, evidence: &Evidence<'_>) -> Failure {
    let seconds = |time: Duration| humantime::format_duration(Duration::from_secs(time.as_secs()));
    match intervention {
        Intervention::HardTimeout(after) => Failure::new(
            ErrorClass::Timeout,
            format!(
                "the agent was stopped after {}, the longest a step may take: raise \
                 AGENT_WORK_ORDER_TIMEOUT or split the request",
                seconds(after)
            ),
        ),
        Intervention::Idle(after) => {
            // Silence after failed calls is the provider's, not the agent's.
            if let Some(error) = evidence.provider_error {
                return provider_failure(error.status, &error.name, &error.said, evidence);
            }
            let message = format!("the agent was stopped after {} of silence", seconds(after));
            Failure::new(ErrorClass::Stalled, message)
        }
        Intervention::Cancelled => Failure::new(
            ErrorClass::Cancelled,
            "the agent was stopped on request; all its processes were ended",
        ),
        Intervention::LeaseLost => Failure::new(
            ErrorClass::LostWorker,
            "the agent was stopped because this replica lost its lease on the order",
        ),
        Intervention::ShimLost => Failure::new(
            ErrorClass::LostWorker,
            "the process that supervises the agent was killed, and the agent with it: look for \
             the kernel's out-of-memory messages",
        ),
        Intervention::DiskFull => full_disk(),
        Intervention::CredentialRefused | Intervention::ExitGrace => {
            let error = evidence.provider_error;
            let status = error.and_then(|error| error.status);
            provider_failure(status, "authentication_failed", "", evidence)
        }
    }
}

fn failed_result(result: &ResultLine, evidence: &Evidence<'_>) -> Failure {
    let said = result.text.clone().unwrap_or_else(|| result.errors.join("; "));
    match result.subtype.as_str() {
        "error_max_turns" => Failure::new(
            ErrorClass::MaxTurns,
            format!(
                "the agent used all its turns before it was done ({said}): raise \
                     CLAUDE_CLI_MAX_TURNS or split the request"
            ),
        ),
        "error_max_budget_usd" => Failure::new(
            ErrorClass::Budget,
            format!(
                "the agent reached its cost limit before it was done ({said}): raise \
                     CLAUDE_CLI_MAX_BUDGET_USD or split the request"
            ),
        ),
        _ if session_is_unknown(Some(result)) => Failure::new(
            ErrorClass::ToolError,
            format!("the agent could not continue its conversation ({said}): run the step afresh"),
        ),
        "success" => {
            let error = evidence.provider_error;
            let status = result.status.or_else(|| error.and_then(|error| error.status));
            let told = error.map(|error| error.said.as_str()).filter(|_| said.trim().is_empty());
            let said = told.unwrap_or(&said);
            provider_failure(status, error.map_or("", |error| &error.name), said, evidence)
        }
        subtype => on_this_machine(evidence, &said).unwrap_or_else(|| {
            Failure::new(ErrorClass::ToolError, format!("the agent ended with {subtype}: {said}"))
        }),
    }
}

fn without_result(evidence: &Evidence<'_>) -> Result<(), Failure> {
    let ended_well = evidence.exit.is_some_and(|exit| exit.code == Some(0));
    if ended_well && !evidence.needs_result {
        return Ok(());
    }
    if let Some(error) = evidence.provider_error {
        return Err(provider_failure(error.status, &error.name, &error.said, evidence));
    }
    if ended_well {
        let message = "the agent ended without a result line: it was interrupted, or its version \
                       is not supported";
        return Err(Failure::new(ErrorClass::ToolError, with_words(message, evidence)));
    }
    Err(bad_exit(evidence))
}

/// The failure of a run whose process did not end with exit code 0.
fn bad_exit(evidence: &Evidence<'_>) -> Failure {
    if let Some(failure) = on_this_machine(evidence, "") {
        return failure;
    }
    let stderr = evidence.stderr;
    if stderr.contains("cannot be used with root") {
        let message = "the agent refuses to run as root: run archon-awo as an ordinary user";
        return Failure::new(ErrorClass::Invalid, with_words(message, evidence));
    }
    let message = match evidence.exit {
        Some(Exit { signal: Some(9), .. } | Exit { code: Some(137), .. }) => {
            "the agent was killed (signal 9) by somebody other than archon-awo".to_owned()
        }
        Some(Exit { signal: Some(signal), .. }) => {
            format!("the agent was ended by signal {signal}")
        }
        Some(Exit { code: Some(code), .. }) => format!("the agent ended with exit code {code}"),
        _ => "the end of the agent was not seen".to_owned(),
    };
    Failure::new(ErrorClass::ToolError, with_words(&message, evidence))
}

/// Memory and disk: causes that lie in this machine and not in the agent.
fn on_this_machine(evidence: &Evidence<'_>, said: &str) -> Option<Failure> {
    if evidence.disk_full || disk::says_full(evidence.stderr) || disk::says_full(said) {
        return Some(full_disk());
    }
    let killed = evidence.exit.is_some_and(|exit| exit.signal == Some(9) || exit.code == Some(137));
    (killed && evidence.out_of_memory).then(|| {
        let message = "the kernel killed the agent because memory ran out: give the container \
                       more memory or lower AWO_MAX_CONCURRENT";
        Failure::new(ErrorClass::Oom, message)
    })
}

fn full_disk() -> Failure {
    let message = "the disk is full: free space on the volumes of the repositories and of the work \
                   orders; the order goes on when there is some";
    Failure::new(ErrorClass::Disk, message)
}

/// The failure behind a refused call of the model provider.
fn provider_failure(
    status: Option<u16>,
    name: &str,
    said: &str,
    evidence: &Evidence<'_>,
) -> Failure {
    let (refusal, status) = classify(status, name, said);
    if matches!(refusal, Refusal::Request | Refusal::Unknown)
        && let Some(failure) = on_this_machine(evidence, said)
    {
        return failure;
    }
    let (class, advice) = (refusal.class(), refusal.advice());
    let details: Vec<String> =
        status.map(|status| format!("HTTP {status}")).into_iter().chain(detail(said)).collect();
    let message = if details.is_empty() {
        advice.to_owned()
    } else {
        format!("{advice} ({})", details.join(", "))
    };
    let retry_after =
        if class == ErrorClass::RateLimited { limit_resets_in(said, evidence) } else { None };
    Failure { retry_after, ..Failure::new(class, message) }
}

/// Until the provider's limit ends: by its own event, else by the words.
fn limit_resets_in(said: &str, evidence: &Evidence<'_>) -> Option<Duration> {
    let event = evidence.limit_resets_at;
    event.map(|at| Duration::from_secs(at.saturating_sub(evidence.now))).or_else(|| {
        let now: DateTime<Utc> = DateTime::from_timestamp(evidence.now.try_into().ok()?, 0)?;
        // The CLI runs on this machine, in its zone.
        until_reset(said, now, &Local)
    })
}

/// The message, with the agent's last words about it.
fn with_words(message: &str, evidence: &Evidence<'_>) -> String {
    let said = detail(evidence.stderr).or_else(|| detail(evidence.stdout));
    said.map_or_else(|| message.to_owned(), |said| format!("{message} ({said})"))
}

/// The last lines of a text, short enough for a sentence.
fn detail(text: &str) -> Option<String> {
    const LONGEST: usize = 400;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = lines[lines.len().saturating_sub(3)..].join(" | ");
    let cut = said.chars().count().saturating_sub(LONGEST);
    let said: String = said.chars().skip(cut).collect();
    (!said.is_empty()).then_some(said)
}

#[cfg(test)]
mod tests;
