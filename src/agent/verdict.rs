//! Decides whether a run counts. The one place for it: an exit code, a result line or a signal
//! alone has each been seen to lie.

use std::time::Duration;

use super::{
    conversation::{ProviderError, ResultLine},
    report::{Exit, Failure},
};
use crate::domain::ErrorClass;

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
    /// Until the provider's limit ends.
    pub limit_resets_in: Option<Duration>,
    /// What we did.
    pub intervention: Option<Intervention>,
    /// The end of its standard error.
    pub stderr: &'a str,
    /// The kernel killed a process for memory while the agent ran.
    pub out_of_memory: bool,
    /// Our own log of the run could not be written because the disk is full.
    pub disk_full: bool,
}

/// The verdict: fine only if exit 0, a result line, subtype `success`, no error and no denial.
pub fn judge(evidence: &Evidence<'_>) -> Result<(), Failure> {
    match evidence.intervention {
        None | Some(Intervention::ExitGrace) => {}
        Some(intervention) => return Err(stopped(intervention, evidence)),
    }
    let Some(result) = evidence.result else { return without_result(evidence) };
    if result.is_error || result.subtype != "success" {
        return Err(failed_result(result, evidence));
    }
    if !result.denied.is_empty() {
        let tools = result.denied.join(", ");
        let message = format!(
            "the agent was not allowed to use {tools}: allow it in the settings of the agent"
        );
        return Err(Failure::new(ErrorClass::ToolError, message));
    }
    match evidence.exit {
        _ if evidence.intervention == Some(Intervention::ExitGrace) => Ok(()),
        Some(Exit { code: Some(0), .. }) => Ok(()),
        _ => Err(bad_exit(evidence)),
    }
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
                return provider_failure(error.status, &error.name, "", evidence);
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
                     claude_max_turns or split the request"
            ),
        ),
        "error_max_budget_usd" => Failure::new(
            ErrorClass::Budget,
            format!(
                "the agent reached its cost limit before it was done ({said}): raise \
                     claude_max_budget_usd or split the request"
            ),
        ),
        _ if session_is_unknown(Some(result)) => Failure::new(
            ErrorClass::ToolError,
            format!("the agent could not continue its conversation ({said}): run the step afresh"),
        ),
        "success" => {
            let error = evidence.provider_error;
            let status = result.status.or_else(|| error.and_then(|error| error.status));
            provider_failure(status, error.map_or("", |error| &error.name), &said, evidence)
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
        return Err(provider_failure(error.status, &error.name, "", evidence));
    }
    if ended_well {
        let message = "the agent ended without a result line: it was interrupted, or its version \
                       is not supported";
        return Err(Failure::new(ErrorClass::ToolError, with_stderr(message, evidence.stderr)));
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
        return Failure::new(ErrorClass::Invalid, with_stderr(message, stderr));
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
    Failure::new(ErrorClass::ToolError, with_stderr(&message, stderr))
}

/// Memory and disk: causes that lie in this machine and not in the agent.
fn on_this_machine(evidence: &Evidence<'_>, said: &str) -> Option<Failure> {
    let full = |text: &str| text.contains("No space left on device") || text.contains("ENOSPC");
    if evidence.disk_full || full(evidence.stderr) || full(said) {
        let message = "the disk is full: free space on the volume of the sandboxes, or lower \
                       AWO_RETENTION_DAYS";
        return Some(Failure::new(ErrorClass::Disk, message));
    }
    let killed = evidence.exit.is_some_and(|exit| exit.signal == Some(9) || exit.code == Some(137));
    (killed && evidence.out_of_memory).then(|| {
        let message = "the kernel killed the agent because memory ran out: give the container \
                       more memory or lower AWO_MAX_CONCURRENT";
        Failure::new(ErrorClass::Oom, message)
    })
}

/// The failure behind a refused call of the model provider.
fn provider_failure(
    status: Option<u16>,
    name: &str,
    said: &str,
    evidence: &Evidence<'_>,
) -> Failure {
    use ErrorClass as Class;
    let no_login = said.contains("Not logged in") || said.contains("/login");
    let (class, advice) = match (status, name) {
        (_, "authentication_failed") | (Some(401 | 403), _) => (
            Class::Auth,
            "the model provider refused the credential: check ANTHROPIC_API_KEY or \
             CLAUDE_CODE_OAUTH_TOKEN",
        ),
        (Some(402), _) | (_, "billing_error") => {
            (Class::Budget, "the account at the model provider has no credit left: add some")
        }
        (Some(429), _) | (_, "rate_limit") => (
            Class::RateLimited,
            "the model provider's rate limit is reached: wait, or lower AWO_MAX_CONCURRENT",
        ),
        (Some(500..), _) | (_, "overloaded" | "server_error") => {
            (Class::Overloaded, "the model provider is overloaded or failing")
        }
        _ if no_login => (
            Class::Auth,
            "the agent has no credential: set ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN",
        ),
        // Without a status the provider did not answer at all.
        (None, _) if said.starts_with("API Error") => (
            Class::Overloaded,
            "the model provider could not be reached: check the network and ANTHROPIC_BASE_URL",
        ),
        _ => match on_this_machine(evidence, said) {
            Some(failure) => return failure,
            None => (Class::ToolError, "the model provider refused the request"),
        },
    };
    let details: Vec<String> =
        status.map(|status| format!("HTTP {status}")).into_iter().chain(detail(said)).collect();
    let message = if details.is_empty() {
        advice.to_owned()
    } else {
        format!("{advice} ({})", details.join(", "))
    };
    let retry_after = evidence.limit_resets_in.filter(|_| class == Class::RateLimited);
    Failure { class, message, retry_after }
}

fn with_stderr(message: &str, stderr: &str) -> String {
    detail(stderr).map_or_else(|| message.to_owned(), |said| format!("{message} ({said})"))
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
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::{Evidence, Intervention, judge, session_is_unknown};
    use crate::{
        agent::{
            conversation::Conversation,
            frames::Framer,
            report::{Exit, Failure},
        },
        domain::ErrorClass as Class,
    };

    /// Real output of two versions of the Claude CLI: one line of a run per line, with how the run
    /// ended.
    const SAMPLES: &str = include_str!("../../tests/data/claude/stream-samples.jsonl");

    fn samples() -> BTreeMap<String, (Conversation, Exit)> {
        let mut streams: BTreeMap<String, (String, i32)> = BTreeMap::new();
        for sample in SAMPLES.lines() {
            let sample: Value = serde_json::from_str(sample).unwrap();
            let code = sample["exit_code"].as_i64().unwrap().try_into().unwrap();
            let case = sample["case"].as_str().unwrap().to_owned();
            let stream = streams.entry(case).or_insert_with(|| (String::new(), code));
            stream.0 += &sample["line"].to_string();
            stream.0.push('\n');
        }
        let hear = |(stream, code): (String, i32)| {
            let mut conversation = Conversation::default();
            for frame in Framer::default().push(stream.as_bytes()) {
                conversation.hear(&frame);
            }
            (conversation, Exit { code: Some(code), signal: None })
        };
        streams.into_iter().map(|(case, stream)| (case, hear(stream))).collect()
    }

    fn evidence(sample: &(Conversation, Exit)) -> Evidence<'_> {
        Evidence {
            needs_result: true,
            exit: Some(sample.1),
            result: sample.0.result.as_ref(),
            provider_error: sample.0.provider_error.as_ref(),
            ..Evidence::default()
        }
    }

    fn class(verdict: Result<(), Failure>) -> Option<Class> {
        verdict.err().map(|failure| failure.class)
    }

    #[test]
    fn every_recorded_run_is_judged_as_it_ended() {
        let expected: BTreeMap<&str, Option<Class>> = [
            ("tools", None),
            ("resume", None),
            ("resume_other_cwd", Some(Class::ToolError)),
            ("maxturns", Some(Class::MaxTurns)),
            ("e401_r1", Some(Class::Auth)),
            ("e401", Some(Class::Auth)),
            ("e400", Some(Class::Budget)),
            ("e429once", None),
            ("e500_r1", Some(Class::Overloaded)),
            ("e529_r1", Some(Class::Overloaded)),
            ("e529_r0", Some(Class::Overloaded)),
            ("drop_r1", None),
            ("budget", Some(Class::Budget)),
            ("noskip", Some(Class::ToolError)),
            ("acceptedits", None),
            ("partial", None),
            ("jsonschema", None),
            ("bare", None),
            ("sigint_hang", Some(Class::ToolError)),
            ("sigterm_hang", Some(Class::ToolError)),
            ("sigint_bash", Some(Class::ToolError)),
            ("sigterm_bash", None),
            ("sigkill_bash", Some(Class::ToolError)),
            ("new_tools", None),
            ("new_401", Some(Class::Auth)),
            ("new_maxturns", Some(Class::MaxTurns)),
            ("new_sigINT_bash", Some(Class::ToolError)),
            ("new_sigTERM_bash", Some(Class::ToolError)),
            ("new_sigint_hang", Some(Class::ToolError)),
            ("new_sigterm_hang", Some(Class::ToolError)),
        ]
        .into();
        let samples = samples();
        let judged: BTreeMap<&str, Option<Class>> = samples
            .iter()
            .map(|(case, sample)| (case.as_str(), class(judge(&evidence(sample)))))
            .collect();
        assert_eq!(judged, expected);
    }

    #[test]
    fn no_run_is_believed_after_our_own_signal() {
        let second = std::time::Duration::from_secs(1);
        for (case, sample) in samples() {
            for (intervention, expected) in [
                (Intervention::Cancelled, Class::Cancelled),
                (Intervention::LeaseLost, Class::LostWorker),
                (Intervention::ShimLost, Class::LostWorker),
                (Intervention::HardTimeout(second), Class::Timeout),
                (Intervention::CredentialRefused, Class::Auth),
            ] {
                let mut evidence = evidence(&sample);
                evidence.intervention = Some(intervention);
                assert_eq!(class(judge(&evidence)), Some(expected), "{case} {intervention:?}");
            }
        }
    }

    #[test]
    fn a_result_stands_when_only_the_exit_was_missing() {
        let samples = samples();
        let mut evidence = evidence(&samples["new_tools"]);
        evidence.exit = Some(Exit { code: None, signal: Some(9) });
        assert_eq!(class(judge(&evidence)), Some(Class::ToolError));
        evidence.intervention = Some(Intervention::ExitGrace);
        assert_eq!(judge(&evidence), Ok(()));
    }

    #[test]
    fn a_kill_is_the_memorys_fault_only_when_the_kernel_says_so() {
        let samples = samples();
        let mut evidence = evidence(&samples["sigkill_bash"]);
        evidence.out_of_memory = true;
        assert_eq!(class(judge(&evidence)), Some(Class::Oom));
    }

    #[test]
    fn a_full_disk_is_named_as_such() {
        let stderr = "write: No space left on device";
        let exit = Some(Exit { code: Some(1), signal: None });
        assert_eq!(
            class(judge(&Evidence { exit, stderr, ..Evidence::default() })),
            Some(Class::Disk)
        );
    }

    #[test]
    fn a_program_without_a_stream_is_judged_by_its_exit_code() {
        let ended = |code| Evidence {
            exit: Some(Exit { code: Some(code), signal: None }),
            stderr: "one\ntwo\n",
            ..Evidence::default()
        };
        assert_eq!(judge(&ended(0)), Ok(()));
        let failure = judge(&ended(3)).unwrap_err();
        assert_eq!(failure.message, "the agent ended with exit code 3 (one | two)");
        assert_eq!(failure.class, Class::ToolError);
    }

    #[test]
    fn a_missing_conversation_is_told_apart_from_other_errors() {
        let samples = samples();
        for (case, (conversation, _)) in &samples {
            let unknown = session_is_unknown(conversation.result.as_ref());
            assert_eq!(unknown, case == "resume_other_cwd", "{case}");
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let samples = samples();
        let messages: Vec<String> =
            ["e401_r1", "e529_r0", "maxturns", "resume_other_cwd", "noskip"]
                .iter()
                .map(|case| judge(&evidence(&samples[*case])).unwrap_err().message)
                .collect();
        insta::assert_snapshot!(messages.join("\n"), @r"
        the model provider refused the credential: check ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN (HTTP 401, Invalid API key · Fix external API key)
        the model provider is overloaded or failing (HTTP 529, API Error: 529 Overloaded. This is a server-side issue, usually temporary — try again in a moment. If it persists, check your inference gateway (127.0.0.1:18181).)
        the agent used all its turns before it was done (Reached maximum number of turns (2)): raise claude_max_turns or split the request
        the agent could not continue its conversation (No conversation found with session ID: bb77dba0-82ea-402a-ba47-7bf09cdf0591): run the step afresh
        the agent was not allowed to use Write: allow it in the settings of the agent
        ");
    }
}
