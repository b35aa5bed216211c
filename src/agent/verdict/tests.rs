//! Every recorded run of the Claude CLI, and made-up ones, judged.

mod facts;
mod told;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Evidence, Intervention, judge, session_is_unknown};
use crate::{
    agent::{
        conversation::Conversation,
        frames::{Frame, Framer},
        report::{Exit, Failure},
    },
    domain::ErrorClass as Class,
};

/// Real output of two versions of the Claude CLI: one line of a run per line, with how the run
/// ended.
const SAMPLES: &str = include_str!("../../../tests/data/claude/stream-samples.jsonl");

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
    evidence_of(&sample.0, sample.1)
}

fn evidence_of(conversation: &Conversation, exit: Exit) -> Evidence<'_> {
    Evidence {
        needs_result: true,
        exit: Some(exit),
        result: conversation.result.as_ref(),
        provider_error: conversation.provider_error.as_ref(),
        usage_limit: conversation.usage_limit,
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
        ("noskip", None),
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
    assert_eq!(class(judge(&Evidence { exit, stderr, ..Evidence::default() })), Some(Class::Disk));
}

#[test]
fn a_run_on_a_full_disk_does_not_count_even_if_it_says_so() {
    let exit = Some(Exit { code: Some(0), signal: None });
    let ended = Evidence { exit, disk_full: true, ..Evidence::default() };
    assert_eq!(class(judge(&ended)), Some(Class::Disk));
    let stopped = Evidence { intervention: Some(Intervention::DiskFull), ..Evidence::default() };
    assert_eq!(class(judge(&stopped)), Some(Class::Disk));
    let cancelled = Evidence { intervention: Some(Intervention::Cancelled), ..ended };
    assert_eq!(class(judge(&cancelled)), Some(Class::Cancelled));
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
    let messages: Vec<String> = ["e401_r1", "e529_r0", "maxturns", "resume_other_cwd"]
        .iter()
        .map(|case| judge(&evidence(&samples[*case])).unwrap_err().message)
        .collect();
    insta::assert_snapshot!(messages.join("\n"), @r"
    the model provider refused the credential: check ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN (HTTP 401, Invalid API key · Fix external API key)
    the model provider is overloaded or failing (HTTP 529, API Error: 529 Overloaded. This is a server-side issue, usually temporary — try again in a moment. If it persists, check your inference gateway (127.0.0.1:18181).)
    the agent used all its turns before it was done (Reached maximum number of turns (2)): raise CLAUDE_CLI_MAX_TURNS or split the request
    the agent could not continue its conversation (No conversation found with session ID: bb77dba0-82ea-402a-ba47-7bf09cdf0591): run the step afresh
    ");
}

/// 2026-12-27 19:00 in Greenwich, in seconds since 1970.
const NOW: u64 = 1_798_398_000;

/// A result line as CLIs without `api_error_status` write it, behind a line that names the error.
fn told(name: Option<&str>, said: &str) -> Failure {
    let line = name.map(|name| {
        json!({ "type": "assistant", "error": name,
            "message": { "id": "m", "content": [{ "type": "text", "text": said }] } })
    });
    let result =
        json!({ "type": "result", "subtype": "success", "is_error": true, "result": said });
    failed(line.into_iter().chain([result]), 1)
}

/// A run that printed these lines and ended with this code, at 2026-12-27 19:00 in Greenwich.
fn judged(lines: impl IntoIterator<Item = Value>, code: i32) -> Result<(), Failure> {
    let mut conversation = Conversation::default();
    let init = json!({ "type": "system", "subtype": "init" });
    for line in [init].into_iter().chain(lines) {
        let frame = Frame { bytes: line.to_string().into_bytes(), truncated: false };
        conversation.hear(&frame);
    }
    let exit = Exit { code: Some(code), signal: None };
    judge(&Evidence { now: NOW, ..evidence_of(&conversation, exit) })
}

fn failed(lines: impl IntoIterator<Item = Value>, code: i32) -> Failure {
    judged(lines, code).unwrap_err()
}

#[test]
fn a_result_without_a_status_is_told_by_its_words() {
    for (name, said, class, sentence) in told::TOLD {
        let failure = told(*name, said);
        assert_eq!(failure.class, *class, "{said}: {}", failure.message);
        assert!(failure.message.starts_with(sentence), "{said}: {}", failure.message);
        assert_eq!(failure.retry_after, None, "{said}");
    }
}

#[test]
fn a_usage_limit_is_waited_for_until_it_resets() {
    // It is 2026-12-27 19:00 in Greenwich.
    for (said, minutes) in [
        ("Claude AI usage limit reached|1798405200", 120),
        (
            "You've hit your session limit · resets 8:30pm (Europe/London)\n/login to switch to an API usage-billed account.",
            90,
        ),
        ("Weekly limit reached · resets Dec 28 at 7pm (UTC) · /upgrade", 24 * 60),
        (
            "API Error: 400 You have reached your specified API usage limits. You will regain access on 2026-12-28 at 00:00 UTC.",
            300,
        ),
        ("5-hour limit reached ∙ resets 9pm (UTC)", 120),
        ("You've hit your limit · resets 1am (UTC)", 360),
        ("You\u{2019}ve hit your Opus limit · resets 1am (UTC) · progress saved", 360),
        ("You're out of extra usage · resets 1am (UTC)", 360),
        ("You've hit your individual usage limit · resets Dec 28, 1am (UTC)", 360),
        ("You've hit your usage limit · resets in 2 hours 5 minutes", 125),
    ] {
        let failure = told(Some("rate_limit"), said);
        assert_eq!(failure.class, Class::RateLimited, "{said}: {}", failure.message);
        assert!(
            failure.message.starts_with("the usage limit of the account"),
            "{}",
            failure.message
        );
        let wait = std::time::Duration::from_secs(minutes * 60);
        assert_eq!(failure.retry_after, Some(wait), "{said}");
    }
    assert_eq!(told(None, "5-hour limit reached").retry_after, None);
}

#[test]
fn a_retry_without_a_status_had_no_answer() {
    let retry = br#"{"type":"system","subtype":"api_retry","error_status":null,"error":"unknown"}"#;
    let mut conversation = Conversation::default();
    conversation.hear(&Frame { bytes: retry.to_vec(), truncated: false });
    let exit = Exit { code: Some(1), signal: None };
    let failure = judge(&evidence_of(&conversation, exit)).unwrap_err();
    assert_eq!(failure.class, Class::Overloaded);
    assert!(failure.message.starts_with("the model provider could not be reached"));
}

#[test]
fn an_agent_that_fails_with_words_on_its_output_alone_is_quoted() {
    let exit = Some(Exit { code: Some(2), signal: None });
    let stdout = "working\nstep 1\nstep 2\nERROR: no such model: x\n";
    let failure = judge(&Evidence { exit, stdout, ..Evidence::default() }).unwrap_err();
    let expected = "the agent ended with exit code 2 (step 1 | step 2 | ERROR: no such model: x)";
    assert_eq!(failure.message, expected);
    let both = Evidence { exit, stdout, stderr: "boom\n", ..Evidence::default() };
    assert_eq!(judge(&both).unwrap_err().message, "the agent ended with exit code 2 (boom)");
}
