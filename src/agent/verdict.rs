//! Decides whether a run counts. The one place for it: an exit code, a result line or a signal
//! alone has each been seen to lie.

mod exit;
mod provider;
mod result_line;

use std::time::Duration;

use super::{
    conversation::{ProviderError, ResultLine, UsageLimit},
    refusal::Facts,
    report::{Exit, Failure},
    setting_names::SettingNames,
};
use crate::{config::AgentNetwork, domain::ErrorClass};

/// The CLI's name for a refused credential.
const REFUSED: &str = "authentication_failed";

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
    /// What its settings are called.
    pub names: SettingNames,
    /// How its process ended.
    pub exit: Option<Exit>,
    /// Its result line.
    pub result: Option<&'a ResultLine>,
    /// The provider's last error that no answer followed.
    pub provider_error: Option<&'a ProviderError>,
    /// The usage limit that was reached, as the agent reported it last.
    pub usage_limit: Option<UsageLimit>,
    /// Where the agent can connect to.
    pub network: Option<AgentNetwork>,
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

/// The verdict: fine only if exit 0, a result line, subtype `success`, no error and nothing that cut the work
/// short. Whether a call of a tool that was refused matters is seen by what the step delivers.
pub fn judge(evidence: &Evidence<'_>) -> Result<(), Failure> {
    match evidence.intervention {
        None | Some(Intervention::ExitGrace) if evidence.disk_full => return Err(full_disk()),
        None | Some(Intervention::ExitGrace) => {}
        Some(intervention) => return Err(stopped(intervention, evidence)),
    }
    let Some(result) = evidence.result else { return without_result(evidence) };
    if let Some(failure) = result_line::failure(result, evidence) {
        return Err(failure);
    }
    match evidence.exit {
        _ if evidence.intervention == Some(Intervention::ExitGrace) => Ok(()),
        Some(Exit { code: Some(0), .. }) => Ok(()),
        _ => Err(exit::failure(evidence)),
    }
}

impl Evidence<'_> {
    /// Whether the agent can connect to the port of its proxy alone.
    fn proxy_only(&self) -> bool {
        self.network == Some(AgentNetwork::Proxy)
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
                let failure = provider::failure(&provider::facts(error, evidence), evidence);
                // It was told to wait for longer than it may be silent.
                let left = error.wait.and_then(|wait| wait.checked_sub(after));
                return Failure { retry_after: failure.retry_after.or(left), ..failure };
            }
            let message = format!(
                "the agent was stopped after {} of silence: raise AWO_AGENT_IDLE_TIMEOUT if its model or \
                 its tools need longer",
                seconds(after)
            );
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
            // Its last words may have come while it was ended.
            let told = evidence.provider_error.filter(|error| error.name == REFUSED);
            let facts = told.map(|error| provider::facts(error, evidence)).unwrap_or_default();
            let facts = Facts { name: REFUSED, ..facts };
            provider::failure(&facts, evidence)
        }
    }
}

/// A run that ended, or was ended, without a result line.
fn without_result(evidence: &Evidence<'_>) -> Result<(), Failure> {
    let ended_well = evidence.exit.is_some_and(|exit| exit.code == Some(0));
    if ended_well && !evidence.needs_result {
        return Ok(());
    }
    if let Some(error) = evidence.provider_error {
        return Err(provider::failure(&provider::facts(error, evidence), evidence));
    }
    if ended_well {
        let message = "the agent ended without a result line: it was interrupted, or its version \
                       is not supported";
        return Err(Failure::new(ErrorClass::ToolError, exit::with_words(message, evidence)));
    }
    Err(exit::failure(evidence))
}

fn full_disk() -> Failure {
    let message = "the disk is full: free space on the volumes of the repositories and of the work \
                   orders; the order goes on when there is some";
    Failure::new(ErrorClass::Disk, message)
}

#[cfg(test)]
mod tests;
