//! The samples of each CLI, made by hand after its documentation, as the common conversation hears them.

use crate::agent::{Conversation, Frame, Preset, interpreter::Interpreter};

/// A run of a sample to its end.
fn hear(preset: Preset, sample: &str) -> (Conversation, Option<String>) {
    let mut interpreter = Interpreter::of(Some(preset));
    let mut conversation = Conversation::default();
    for line in sample.lines() {
        let frame = Frame { bytes: line.as_bytes().to_vec(), truncated: false };
        interpreter.hear(&frame, &mut conversation);
    }
    interpreter.end(&mut conversation);
    (conversation, interpreter.own_name())
}

macro_rules! sample {
    ($preset:ident, $file:literal) => {
        hear(Preset::$preset, include_str!(concat!("../../../tests/data/", $file, ".jsonl")))
    };
}

#[test]
fn a_run_that_ends_well_gives_its_answer_and_its_conversation() {
    for (conversation, name) in [
        sample!(Codex, "codex/success"),
        sample!(Gemini, "gemini/success"),
        sample!(OpenCode, "opencode/success"),
        sample!(OpenCode, "opencode/without-last-line"),
    ] {
        assert_eq!(name.as_deref(), Some("SESSION"));
        // Not what was said on the way.
        assert_eq!(conversation.answer(), "ANSWER");
        let result = conversation.result.as_ref().unwrap();
        assert_eq!((result.subtype.as_str(), result.is_error), ("success", false));
        assert!(!conversation.work_is_open());
        assert_eq!(conversation.provider_error, None);
    }
}

#[test]
fn what_came_from_the_cache_is_no_input() {
    let codex = sample!(Codex, "codex/success").0.usage().consumed(&[]).total();
    assert_eq!(
        (codex.input_tokens, codex.cache_read_tokens, codex.output_tokens),
        (315, 24_448, 122)
    );
    assert!(codex.cost_usd <= 0.0);
    let gemini = sample!(Gemini, "gemini/success").0.usage().consumed(&[]).total();
    assert_eq!((gemini.input_tokens, gemini.cache_read_tokens), (3_676, 21_263));
    assert_eq!(gemini.output_tokens, 174);
    let opencode = sample!(OpenCode, "opencode/success").0.usage().consumed(&[]).total();
    assert_eq!((opencode.input_tokens, opencode.output_tokens), (540, 270));
    assert_eq!((opencode.cache_read_tokens, opencode.cache_creation_tokens()), (800, 25));
    assert!((opencode.cost_usd - 0.0052).abs() < 1e-9);
}

#[test]
fn a_conversation_that_goes_on_is_counted_once() {
    // codex tells what its conversation has consumed so far, the others what the run has.
    let first = sample!(Codex, "codex/success").0.usage();
    let later = include_str!("../../../tests/data/codex/success.jsonl")
        .replace("24763", "30000")
        .replace(r#""output_tokens":122"#, r#""output_tokens":130"#);
    let second = hear(Preset::Codex, &later).0.usage();
    let consumed = second.consumed(&[first.left_behind()]).total();
    assert_eq!((consumed.input_tokens, consumed.output_tokens), (5_237, 8));
    for (conversation, _) in
        [sample!(Gemini, "gemini/success"), sample!(OpenCode, "opencode/success")]
    {
        let usage = conversation.usage();
        let all = usage.consumed(&[]).total();
        assert_eq!(usage.consumed(&[usage.left_behind()]).total(), all);
    }
}

#[test]
fn an_error_of_the_provider_is_known_by_name_and_status() {
    for ((conversation, _), name, status) in [
        (sample!(Codex, "codex/unauthorized"), "authentication_failed", Some(401)),
        (sample!(Codex, "codex/limit"), "rate_limit", Some(429)),
        (sample!(Gemini, "gemini/quota"), "rate_limit", Some(429)),
        (sample!(OpenCode, "opencode/overloaded"), "overloaded", Some(529)),
        (sample!(OpenCode, "opencode/unauthorized"), "authentication_failed", None),
    ] {
        let result = conversation.result.as_ref().unwrap();
        assert!(result.is_error);
        assert_eq!(result.status, status);
        assert_eq!(conversation.provider_error.unwrap().name, name);
    }
}

#[test]
fn a_limit_of_turns_has_its_own_name() {
    let (conversation, _) = sample!(Gemini, "gemini/turns");
    assert_eq!(conversation.result.unwrap().subtype, "error_max_turns");
}

#[test]
fn a_run_that_is_cut_off_gives_no_result_and_has_a_tool_open() {
    let (conversation, _) = sample!(Codex, "codex/unfinished");
    assert_eq!(conversation.result, None);
    assert!(conversation.work_is_open());
}

#[test]
fn a_retry_that_helps_leaves_no_error_behind() {
    let (conversation, _) = hear(
        Preset::OpenCode,
        concat!(
            include_str!("../../../tests/data/opencode/overloaded.jsonl"),
            include_str!("../../../tests/data/opencode/success.jsonl")
        ),
    );
    assert!(!conversation.result.as_ref().unwrap().is_error);
    assert_eq!(conversation.answer(), "ANSWER");
}

#[test]
fn lines_of_any_other_kind_do_no_harm() {
    for preset in [Preset::Codex, Preset::Gemini, Preset::OpenCode] {
        let (conversation, name) = hear(
            preset,
            "warning: a new version\n[1]\n{}\n{\"type\":7}\n{\"type\":\"hologram\"}\n{\"type\":\"item.completed\"}\n\
             {\"type\":\"result\"}\n{\"type\":\"error\",\"error\":[]}\n{\"type\":\"tool_use\",\"part\":3}\n{\"type\"",
        );
        assert_eq!(name, None);
        assert!(!conversation.work_is_open(), "{preset:?}");
    }
}
