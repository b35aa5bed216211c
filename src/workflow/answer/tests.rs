//! Answers as models give them, and what was asked for in them.

use proptest::prelude::*;

use super::{Lead, field, only_leads, take_out, unwrapped};

const MESSAGE: &str = "feat: say hello\n\nPeople asked for it.";

#[test]
fn what_is_around_a_message_goes() {
    for around in [
        "Here is the commit message:\n\n{}",
        "Sure! Here's a commit message for the change:\n\n{}",
        "**Here is the commit message:**\n{}",
        "I'll look at the diff first.\n\nLet me check the tests.\n\n{}",
        "I\u{2019}ve reviewed the change.\n\n{}",
        "```\n{}\n```",
        "```text\n{}\n```",
        "~~~\n{}\n~~~\n",
        "Okay.\n\n````markdown\n{}\n````\n\nLet me know if you want another one!",
        "---\ntype: feat\nscope: none\n---\n\n{}",
        "```markdown\n---\ntype: feat\n---\n{}\n```\n\n🤖 Generated with [Claude Code](https://claude.ai/code)",
        "{}\n\n---\n\nCo-Authored-By: Claude <noreply@anthropic.com>",
        "{}\n\nWould you like me to change anything?",
    ] {
        let text = around.replace("{}", MESSAGE);
        assert_eq!(unwrapped(&text, Lead::Talking), MESSAGE, "{text}");
    }
}

#[test]
fn a_fence_is_taken_off_only_where_it_is_around_everything() {
    let nested = "```markdown\nSay hello\n\n```sh\nmake\n```\n\nDone.\n```";
    assert_eq!(unwrapped(nested, Lead::Talking), "Say hello\n\n```sh\nmake\n```\n\nDone.");
    for text in ["```sh\nmake\n```\nand\n```sh\ntest\n```", "```\n```", "``` a", "```\na\n````"] {
        assert_eq!(unwrapped(text, Lead::Talking), text, "{text}");
    }
}

#[test]
fn a_plan_keeps_what_the_agent_will_do() {
    let plan = "I'll change a.rs.\n\nI'll add a test.";
    assert_eq!(unwrapped(&format!("Here is the plan:\n\n{plan}"), Lead::Pointing), plan);
}

#[test]
fn an_introduction_alone_is_told_from_a_text() {
    assert!(
        only_leads("I'll look at the diff first.")
            && only_leads(" Let me look at the code first.\n")
    );
    assert!(
        !only_leads("Let me in") && !only_leads("Say hello.") && !only_leads("Sure.\nSay hello")
    );
    assert_eq!(
        unwrapped("Let me look at the code first.", Lead::Talking),
        "Let me look at the code first."
    );
}

#[test]
fn fields_of_front_matter_are_found() {
    let (text, fields) =
        take_out("Sure!\n\n---\nTitle: \"Say hello\"\nlabels: [a]\n---\nBody.", Lead::Talking);
    assert_eq!(text, "Body.");
    let fields = fields.unwrap();
    assert_eq!(field(&fields, "title"), Some("Say hello"));
    assert_eq!(field(&fields, "draft"), None);
    // Rules between paragraphs are no front matter.
    let rules = "---\nOne sentence.\n---\nAnother.";
    assert_eq!(take_out(rules, Lead::Talking), (rules.to_owned(), None));
}

#[test]
fn many_layers_cost_no_time() {
    for text in ["Sure!\n".repeat(300_000), "---\na: b\n".repeat(200_000), "```\n".repeat(300_000)]
    {
        unwrapped(&text, Lead::Talking);
    }
}

/// Paragraphs that nothing in them makes a part of the packing.
fn clean() -> impl Strategy<Value = String> {
    prop::collection::vec("(Add|Fix|Move|Keep) [a-z]{1,12}( [a-z]{1,12}){0,8}", 1..5)
        .prop_map(|paragraphs| paragraphs.join("\n\n"))
}

proptest! {
    #[test]
    fn a_clean_text_is_left_alone(text in clean()) {
        prop_assert_eq!(unwrapped(&text, Lead::Talking), text.clone());
        prop_assert_eq!(unwrapped(&text, Lead::Pointing), text);
    }

    #[test]
    fn no_answer_loses_all_its_words(text in ".*", packed in "(Sure!|```|---|a: b|I'll go\\.|\n|word){0,12}") {
        for text in [text.clone(), packed.clone(), format!("{packed}\n{text}\n{packed}")] {
            for lead in [Lead::Talking, Lead::Pointing] {
                let once = unwrapped(&text, lead);
                prop_assert_eq!(unwrapped(&once, lead), once.clone());
                let had = text.chars().any(char::is_alphanumeric);
                prop_assert!(!had || once.chars().any(char::is_alphanumeric), "{text:?}");
            }
        }
    }
}
