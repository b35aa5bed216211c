//! Runs judged by what their lines tell beside words, and by how their process ended.

use std::time::Duration;

use serde_json::{Value, json};

use super::{NOW, evidence_of, failed, judged, told};
use crate::{
    agent::{
        conversation::Conversation,
        frames::Frame,
        report::Exit,
        verdict::{Evidence, Intervention, judge},
    },
    config::AgentNetwork,
    domain::ErrorClass as Class,
};

/// A result line with these facts beside its words.
fn result(subtype: &str, is_error: bool, said: &str, more: &Value) -> Value {
    let mut line =
        json!({ "type": "result", "subtype": subtype, "is_error": is_error, "result": said });
    line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    line
}

#[test]
fn why_model_and_agent_stopped_counts_more_than_a_success() {
    for (stop, terminal, is_error, class, sentence) in [
        (
            "refusal",
            "completed",
            false,
            Class::ToolError,
            "the model refused this request by the usage policy",
        ),
        (
            "refusal",
            "api_error",
            true,
            Class::ToolError,
            "the model refused this request by the usage policy",
        ),
        (
            "max_tokens",
            "completed",
            false,
            Class::ToolError,
            "one answer of the model was longer than",
        ),
        (
            "max_tokens",
            "api_error",
            true,
            Class::ToolError,
            "one answer of the model was longer than",
        ),
        (
            "model_context_window_exceeded",
            "",
            true,
            Class::ToolError,
            "the request and what the agent read",
        ),
        (
            "stop_sequence",
            "prompt_too_long",
            true,
            Class::ToolError,
            "the request and what the agent read",
        ),
        (
            "end_turn",
            "blocking_limit",
            false,
            Class::ToolError,
            "the request and what the agent read",
        ),
        ("tool_use", "hook_stopped", false, Class::ToolError, "a hook ended the run of the agent"),
        ("", "turn_setup_failed", false, Class::Invalid, "the agent did not begin"),
        ("tool_use", "aborted_tools", false, Class::ToolError, "the agent was interrupted"),
        ("tool_use", "max_turns", false, Class::MaxTurns, "the agent used all its turns"),
        ("tool_use", "budget_exhausted", false, Class::Budget, "the agent reached its cost limit"),
        (
            "tool_use",
            "malformed_tool_use_exhausted",
            true,
            Class::ToolError,
            "the model called its tools again",
        ),
        ("end_turn", "api_error", false, Class::ToolError, "the agent ended with an error"),
    ] {
        let facts = json!({ "stop_reason": stop, "terminal_reason": terminal });
        let failure = failed([result("success", is_error, "I cannot go on.", &facts)], 0);
        let told = format!("{stop} {terminal}: {}", failure.message);
        assert_eq!(failure.class, class, "{told}");
        assert!(failure.message.starts_with(sentence), "{told}");
        let quoted = failure.message.contains("(I cannot go on.)");
        assert!(quoted || terminal == "aborted_tools", "{told}");
    }
    for terminal in ["completed", "stop_hook_prevented", "tool_deferred", "something_new"] {
        let facts = json!({ "stop_reason": "end_turn", "terminal_reason": terminal });
        assert_eq!(judged([result("success", false, "Fine.", &facts)], 0), Ok(()), "{terminal}");
    }
}

#[test]
fn a_refusal_after_failed_calls_is_not_a_matter_of_the_network() {
    let retry = json!({ "type": "system", "subtype": "api_retry", "error_status": null, "error": "unknown",
        "retry_delay_ms": 500 });
    for stop in ["refusal", "max_tokens"] {
        let facts = json!({ "stop_reason": stop });
        let failure = failed([retry.clone(), result("success", true, "", &facts)], 1);
        assert_eq!(failure.class, Class::ToolError, "{}", failure.message);
    }
}

#[test]
fn the_type_of_the_providers_error_tells_where_nothing_else_does() {
    for (kind, class) in [
        ("authentication_error", Class::Auth),
        ("permission_error", Class::Auth),
        ("billing_error", Class::Budget),
        ("not_found_error", Class::Invalid),
        ("request_too_large", Class::ToolError),
        ("rate_limit_error", Class::RateLimited),
        ("overloaded_error", Class::Overloaded),
        ("api_error", Class::Overloaded),
        ("timeout_error", Class::Overloaded),
        ("invalid_request_error", Class::ToolError),
    ] {
        let facts = json!({ "api_error_type": kind, "api_error_status": 400 });
        let failure = failed([result("success", true, "API Error: Etwas ist schief.", &facts)], 1);
        assert_eq!(failure.class, class, "{kind}: {}", failure.message);
        let inside = format!(
            r#"API Error: {{"type":"error","error":{{"type":"{kind}","message":"Etwas."}}}}"#
        );
        let failure = told(None, &inside);
        assert_eq!(failure.class, class, "{kind}: {}", failure.message);
        assert!(failure.message.ends_with("(API Error: Etwas.)"), "{}", failure.message);
    }
}

#[test]
fn a_limit_that_was_reported_counts_whatever_the_words_are() {
    let event = |status: &str| {
        json!({ "type": "rate_limit_event", "rate_limit_info":
            { "status": status, "resetsAt": NOW + 600, "rateLimitType": "five_hour" } })
    };
    let words = result("success", true, "Plus de crédit pour le moment.", &json!({}));
    let failure = failed([event("rejected"), words.clone()], 1);
    assert_eq!(failure.class, Class::RateLimited, "{}", failure.message);
    assert_eq!(failure.retry_after, Some(Duration::from_mins(10)));
    let failure = failed([event("rejected"), event("allowed"), words], 1);
    assert_eq!(
        (failure.class, failure.retry_after),
        (Class::ToolError, None),
        "{}",
        failure.message
    );
}

#[test]
fn a_connection_that_our_bounds_forbid_names_the_setting() {
    for said in [
        "API Error: Unable to connect to API (EACCES)",
        "API Error: Can't reach the API server \u{2014} check your internet or DNS (FailedToOpenSocket)",
    ] {
        let mut conversation = Conversation::default();
        let line = result("success", true, said, &json!({})).to_string().into_bytes();
        conversation.hear(&Frame { bytes: line, truncated: false });
        let exit = Exit { code: Some(1), signal: None };
        let open = judge(&evidence_of(&conversation, exit)).unwrap_err();
        assert_eq!(open.class, Class::Overloaded, "{}", open.message);
        assert!(
            open.message.starts_with("the model provider could not be reached"),
            "{}",
            open.message
        );
        let shut =
            Evidence { network: Some(AgentNetwork::Proxy), ..evidence_of(&conversation, exit) };
        let shut = judge(&shut).unwrap_err();
        assert_eq!(shut.class, Class::Invalid, "{}", shut.message);
        for setting in ["AWO_AGENT_NETWORK=proxy", "AWO_AGENT_PROXY", "ANTHROPIC_BASE_URL"] {
            assert!(shut.message.contains(setting), "{}", shut.message);
        }
    }
}

#[test]
fn an_agent_that_waits_for_longer_than_it_may_be_silent_is_asked_again_then() {
    let retry = json!({ "type": "system", "subtype": "api_retry", "error_status": 429, "error": "rate_limit",
        "retry_delay_ms": 3_600_000 });
    let mut conversation = Conversation::default();
    conversation.hear(&Frame { bytes: retry.to_string().into_bytes(), truncated: false });
    let evidence = Evidence {
        intervention: Some(Intervention::Idle(Duration::from_mins(15))),
        ..evidence_of(&conversation, Exit { code: None, signal: Some(2) })
    };
    let failure = judge(&evidence).unwrap_err();
    assert_eq!(failure.class, Class::RateLimited, "{}", failure.message);
    assert_eq!(failure.retry_after, Some(Duration::from_mins(45)));
}

#[test]
fn silence_names_its_setting() {
    let evidence = Evidence {
        intervention: Some(Intervention::Idle(Duration::from_mins(15))),
        ..Evidence::default()
    };
    let failure = judge(&evidence).unwrap_err();
    assert_eq!(failure.class, Class::Stalled);
    assert!(failure.message.contains("AWO_AGENT_IDLE_TIMEOUT"), "{}", failure.message);
}

#[test]
fn a_program_that_this_system_cannot_run_is_told_from_one_that_failed() {
    let glibc = "/opt/claude: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by /opt/claude)";
    let library = "codex: error while loading shared libraries: libssl.so.3: cannot open shared object file: No such file or directory";
    let heap = "<--- Last few GCs --->\nFATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory";
    for (stderr, code, signal, class, sentence) in [
        (glibc, Some(1), None, Class::Invalid, "the agent's program does not fit this system"),
        (library, Some(127), None, Class::Invalid, "the agent's program does not fit this system"),
        (heap, Some(134), None, Class::Oom, "the agent ended because it got no more memory"),
        (heap, None, Some(6), Class::Oom, "the agent ended because it got no more memory"),
        (
            "panic: Segmentation fault",
            None,
            Some(11),
            Class::ToolError,
            "the agent was ended by signal 11",
        ),
        (
            "Error: Session ID 1 is already in use.",
            Some(1),
            None,
            Class::ToolError,
            "the agent ended with exit code 1 (Error: Session",
        ),
    ] {
        let exit = Some(Exit { code, signal });
        let failure = judge(&Evidence { exit, stderr, needs_result: true, ..Evidence::default() })
            .unwrap_err();
        assert_eq!(failure.class, class, "{stderr}: {}", failure.message);
        assert!(failure.message.starts_with(sentence), "{stderr}: {}", failure.message);
    }
}

#[test]
fn a_request_that_a_hook_held_back_has_no_answer() {
    // As versions 2.1.332 and 2.1.138 print it.
    for said in ["UserPromptSubmit operation blocked by hook:\n[./check]: closed today", ""] {
        let line = result("success", false, said, &json!({ "stop_reason": null }));
        let failure = failed([line.clone()], 0);
        assert_eq!(failure.class, Class::ToolError, "{}", failure.message);
        assert!(
            failure.message.starts_with("the request did not reach the model"),
            "{}",
            failure.message
        );
        assert_eq!(failure.message.contains("closed today"), !said.is_empty());
        let answer = json!({ "type": "assistant", "message": { "id": "m", "content": [] } });
        assert_eq!(judged([answer, line], 0), Ok(()));
    }
}
