//! Title and body of the pull request: the agent's words where they are usable, calling nobody and
//! pretending nothing.

use super::{
    answer::{Lead, field, only_leads, take_out},
    plain_text,
};
use crate::domain::WorkOrderId;

/// Longest title, in characters.
const MAX_TITLE: usize = 100;
/// Longest body, in characters; GitHub takes 65,536, and the forge adds its marker.
const MAX_BODY: usize = 60_000;
/// What agents write before a title, and before the description behind it.
const TITLE_LABELS: &[&str] = &["pull request title", "pr title", "title"];
const BODY_LABELS: &[&str] =
    &["pull request description", "pr description", "description", "pull request body", "body"];
/// Longest part of request and plan in a body made without the agent, in characters.
const MAX_PART: usize = 20_000;

/// The text for the pull request of `order`: `proposed` (first line title, rest body), else made
/// from the request, the plan and the number of changed files.
pub fn title_and_body(
    proposed: Option<&str>,
    request: &str,
    plan_summary: &str,
    files_changed: u64,
    order: &WorkOrderId,
) -> (String, String) {
    let (title, body) = proposed.and_then(|proposed| split(proposed).ok()).unwrap_or_else(|| {
        (fallback_title(request, order), fallback_body(request, plan_summary, files_changed))
    });
    let footer = format!("\n\n---\n*Work order `{order}`, carried out by archon-awo.*\n");
    let room = MAX_BODY - footer.chars().count();
    (title, format!("{}{footer}", harmless(&body, room)))
}

/// Why a proposal does not become title and body; nothing when it does.
pub fn unused(proposed: &str) -> Option<String> {
    split(proposed).err()
}

/// A usable title and the rest, or why there is none.
fn split(proposed: &str) -> Result<(String, String), String> {
    let (text, fields) = take_out(&plain_text::visible(proposed), Lead::Talking);
    if text.is_empty() {
        return Err("the answer is empty".to_owned());
    }
    let named = fields.as_deref().and_then(|fields| field(fields, "title")).map(title);
    if let Some(title) = named.filter(|title| !title.is_empty()) {
        return Ok((title, text));
    }
    let (mut first, mut rest) = next_line(&text);
    let labelled = is_label(first, TITLE_LABELS);
    if labelled {
        (first, rest) = next_line(rest);
    }
    if rest.is_empty() && only_leads(first) {
        return Err(format!("it holds nothing but {first:?}"));
    }
    let title = title(first);
    if title.is_empty() {
        return Err("its first line has no words for a title".to_owned());
    }
    let (heading, behind) = next_line(rest);
    let is_heading = is_label(heading, BODY_LABELS) && (labelled || heading.contains(':'));
    Ok((title, if is_heading { behind } else { rest }.to_owned()))
}

/// The first line, and the text behind it.
fn next_line(text: &str) -> (&str, &str) {
    let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
    (line.trim(), rest.trim())
}

/// Whether a line only says what the next one is.
fn is_label(line: &str, labels: &[&str]) -> bool {
    let bare = line.trim_matches(['*', '_', '#', ':', ' ']);
    labels.iter().any(|label| bare.eq_ignore_ascii_case(label))
}

/// One line of plain text: no heading, no emphasis around it, no label, no comment, no mention.
fn title(line: &str) -> String {
    let line = plain_text::without_comments(&plain_text::one_line(line), |_| true);
    let marks =
        |c: char| matches!(c, '#' | '*' | '_' | '`' | '"' | '>' | '-' | '=' | '~') || c == ' ';
    let mut text = line.trim_start_matches(marks);
    if let Some((label, behind)) = text.split_once(':')
        && is_label(label, TITLE_LABELS)
    {
        text = behind.trim_start_matches(marks);
    }
    let text = text.trim_end_matches(['*', '`', '"', '#', ' ']);
    let has_words = text.chars().any(char::is_alphanumeric);
    let text = if has_words { text } else { "" };
    plain_text::shorten(&without_mentions(text), MAX_TITLE)
}

fn fallback_title(request: &str, order: &WorkOrderId) -> String {
    let text = plain_text::visible(request);
    let first = text.lines().map(title).find(|line| !line.is_empty());
    first.unwrap_or_else(|| format!("Work order {order}"))
}

fn fallback_body(request: &str, plan_summary: &str, files_changed: u64) -> String {
    let part = |text: &str| plain_text::shorten(plain_text::visible(text).trim(), MAX_PART);
    let quoted = part(request).lines().collect::<Vec<_>>().join("\n> ");
    let plan = match part(plan_summary) {
        plan if plan.is_empty() => plan,
        plan => format!("## Plan\n\n{plan}\n\n"),
    };
    let files = if files_changed == 1 { "file" } else { "files" };
    format!("## Request\n\n> {quoted}\n\n{plan}## Changes\n\n{files_changed} {files} changed.")
}

/// At most `limit` characters that notify nobody, forge no marker and leave no code block open.
fn harmless(body: &str, limit: usize) -> String {
    let text = plain_text::visible(body);
    let text = plain_text::without_comments(&text, is_marker);
    let text = without_mentions(&text);
    // The end of a cut comment or code block takes a few characters.
    let mut text = plain_text::shorten(&text, limit - 10);
    if text.rfind("<!--").is_some_and(|start| !text[start..].contains("-->")) {
        text.push_str(" -->");
    }
    let fences = text.lines().filter(|line| line.trim_start().starts_with("```")).count();
    if fences % 2 == 1 {
        text.push_str("\n```");
    }
    text
}

/// Whether a comment could be taken for the one by which the forge recognises its own.
fn is_marker(comment: &str) -> bool {
    comment.to_ascii_lowercase().contains("archon-awo")
}

/// `@name` with a zero-width space after the `@`, so that the forge notifies nobody; addresses like
/// `a@b` call nobody and stay.
fn without_mentions(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut before = ' ';
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        safe.push(c);
        let calls = c == '@' && !before.is_ascii_alphanumeric();
        if calls && characters.peek().is_some_and(char::is_ascii_alphanumeric) {
            safe.push('\u{200b}');
        }
        before = c;
    }
    safe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MAX_BODY, MAX_TITLE, title_and_body, unused};
    use crate::domain::WorkOrderId;

    fn order() -> WorkOrderId {
        "wo-1".parse().unwrap()
    }

    fn text(proposed: &str) -> (String, String) {
        title_and_body(Some(proposed), "Add a button", "1. Add it.", 2, &order())
    }

    #[test]
    fn the_first_line_is_the_title_without_its_decoration() {
        for proposed in [
            "Add a button\n\nBody.",
            "# Add a button\n\nBody.",
            "**Title: Add a button**\nBody.",
            "```markdown\nAdd a button\n\nBody.\n```",
            "\n\n  Add\u{7} a \u{202e}button  \n\nBody.",
            "I'll look at the diff first.\n\nAdd a button\n\nBody.",
            "Here are the title and the description:\n\n**PR title:** Add a button\n\n**Description:**\n\nBody.",
            "## Title\n\nAdd a button\n\n## Description\n\nBody.",
            "---\ntitle: \"Add a button\"\n---\n\nBody.",
            "```\nAdd a button\n\nBody.\n```\n\nFeel free to change it.",
            "Add a button\n\nBody.\n\n---\n🤖 Generated with [Claude Code](https://claude.ai/code)\n\n\
             Co-Authored-By: Claude <noreply@anthropic.com>",
        ] {
            let (title, body) = text(proposed);
            assert_eq!(title, "Add a button", "{proposed:?}");
            assert!(body.starts_with("Body.\n\n---\n"), "{body}");
        }
    }

    #[test]
    fn a_body_keeps_its_headings_and_the_people_in_it() {
        let said = "## Description\n\nIt adds a button.\n\nCo-authored-by: Ada <ada@example.org>";
        let (_, body) = text(&format!("Add a button\n\n{said}"));
        assert!(body.starts_with(&format!("{said}\n\n---\n")), "{body}");
    }

    #[test]
    fn it_is_told_why_a_proposal_is_not_used() {
        assert_eq!(unused("Add a button"), None);
        for (proposed, why) in [
            (" \n", "the answer is empty"),
            (
                "I'll look at the diff first.",
                "it holds nothing but \"I'll look at the diff first.\"",
            ),
            ("###\n\nBody.", "its first line has no words for a title"),
        ] {
            assert_eq!(unused(proposed).as_deref(), Some(why), "{proposed}");
            assert_eq!(text(proposed).0, "Add a button", "{proposed}");
        }
    }

    #[test]
    fn a_body_with_code_blocks_keeps_them() {
        let (title, body) = text("Add it\n\n```sh\nmake\n```\nand\n```sh\ntest\n```");
        assert_eq!(title, "Add it");
        assert!(body.starts_with("```sh\nmake\n```\nand"), "{body}");
    }

    #[test]
    fn without_a_usable_proposal_the_request_speaks() {
        for proposed in ["", " \n\n", "###", "```\n```"] {
            let (title, body) = text(proposed);
            assert_eq!(title, "Add a button", "{proposed:?}");
            for part in ["> Add a button", "1. Add it.", "2 files changed."] {
                assert!(body.contains(part), "{part:?} is missing in {body}");
            }
        }
        assert_eq!(title_and_body(None, "", "", 0, &order()).0, "Work order wo-1");
    }

    #[test]
    fn nobody_is_called_and_no_marker_is_forged() {
        let (title, body) = text(
            "Ask @alice\n\nDear @bob, mail x@y.example.\n<!-- archon-awo:wo-2 --><!-- keep -->\n\
             <!<!-- archon-awo:a -->-- Archon-AWO:b -->\n```\nopen",
        );
        assert_eq!(title, "Ask @\u{200b}alice");
        assert!(body.contains("@\u{200b}bob") && body.contains("x@y.example"), "{body}");
        assert!(!body.contains("awo:"), "{body}");
        assert!(body.contains("<!-- keep -->"), "{body}");
        assert!(body.contains("open\n```\n"), "{body}");
    }

    proptest! {
        #[test]
        fn every_text_fits_and_is_harmless(
            proposed in ".*",
            extra in "[<!>`@a\n#-]{0,80}",
            request in ".*",
            plan in ".*",
            times in 0_usize..3,
        ) {
            let long = format!("{extra}\n{}", proposed.repeat(times * 3_000));
            let signed = format!(
                "{extra}\n\n🤖 Generated with [Claude Code](https://claude.ai/code)\n\n\
                 Co-Authored-By: Claude <noreply@anthropic.com>\n{extra}"
            );
            for proposed in [None, Some(long.as_str()), Some(extra.as_str()), Some(signed.as_str())] {
                let (title, body) = title_and_body(proposed, &request, &plan, 1, &order());
                prop_assert!(!title.trim().is_empty() && title.chars().count() <= MAX_TITLE);
                prop_assert!(!title.chars().any(char::is_control) && !title.starts_with('#'));
                prop_assert!(body.chars().count() <= MAX_BODY);
                let words = ["claude code", "anthropic"];
                prop_assert!(!words.iter().any(|word| body.to_lowercase().contains(word)));
                let mut calls = body.match_indices("@a").map(|(at, _)| &body[..at]);
                prop_assert!(calls.all(|before| before.ends_with(|c: char| c.is_alphanumeric())));
                prop_assert!(!body.contains("<!-- archon-awo"));
            }
        }
    }
}
