//! Every recorded run of the Claude CLI, and made-up ones, judged.

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
    let messages: Vec<String> = ["e401_r1", "e529_r0", "maxturns", "resume_other_cwd", "noskip"]
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
