//! The commit message: the agent's words where they have the required form, never its signatures.

use super::{
    adverts::{is_advert, without_adverts},
    answer::{Lead, unwrapped},
    plain_text,
};
use crate::domain::{WorkOrderId, branch_kind};

/// Longest first line, in characters, as git's own tools expect.
const MAX_SUBJECT: usize = 72;
/// Longest body, in bytes, without the trailer.
const MAX_BODY: usize = 4 * 1024;
/// Lines of the body are wrapped at this width, in characters.
const WIDTH: usize = 72;
/// The types of conventional commits.
const TYPES: [&str; 11] =
    ["feat", "fix", "docs", "style", "refactor", "perf", "test", "build", "ci", "chore", "revert"];
/// What agents write before a subject.
const LABELS: [&str; 4] = ["commit message:", "message:", "subject:", "title:"];
/// Trailers by which somebody vouches for a commit; an agent cannot do that for anybody. To name a person
/// as a second author is credit, and stays.
const FORGEABLE: [&str; 8] = [
    "archon-work-order",
    "signed-off-by",
    "reviewed-by",
    "acked-by",
    "tested-by",
    "approved-by",
    "committed-by",
    "on-behalf-of",
];

/// The message of an order's commit: `proposed` when it is in conventional form, else one made from
/// the request. Never empty; ends with the trailer `Archon-Work-Order: <id>`.
pub fn commit_message(proposed: Option<&str>, request: &str, order: &WorkOrderId) -> String {
    let (subject, body) = proposed
        .and_then(|proposed| accept(proposed).ok())
        .unwrap_or_else(|| (fallback_subject(request, order), String::new()));
    let mut message = subject;
    if !body.is_empty() {
        message.push_str("\n\n");
        message.push_str(&body);
    }
    message.push_str("\n\nArchon-Work-Order: ");
    message.push_str(order.as_str());
    message.push('\n');
    message
}

/// Why a proposal does not become the message; nothing when it does.
pub fn unused(proposed: &str) -> Option<String> {
    accept(proposed).err()
}

/// Subject and body of a proposal, or what is wrong with it; of several readings, the first whose subject has
/// the form.
fn accept(proposed: &str) -> Result<(String, String), String> {
    let text = plain_text::visible(proposed);
    let bare = unwrapped(&text, Lead::Talking);
    let fenced = plain_text::fenced_blocks(&text).into_iter().find_map(|block| split(block.trim()));
    fenced.or_else(|| starts(&bare).find_map(split)).ok_or_else(|| why_not(&bare))
}

/// What is wrong with a text none of whose readings has the form.
fn why_not(text: &str) -> String {
    if text.is_empty() {
        return "the answer is empty".to_owned();
    }
    let subjects = starts(text).map(|text| subject(text.lines().next().unwrap_or_default()));
    match subjects.into_iter().find(|line| has_form(line)) {
        Some(line) => {
            let length = line.chars().count();
            format!("its first line has {length} characters: expected at most {MAX_SUBJECT}")
        }
        None => "no paragraph of it begins with \"type(scope): subject\"".to_owned(),
    }
}

/// The text from each of its paragraphs on.
fn starts(text: &str) -> impl Iterator<Item = &str> {
    let later = text.match_indices("\n\n").map(|(at, _)| text[at..].trim_start());
    std::iter::once(text).chain(later)
}

/// A text whose first line is a subject.
fn split(text: &str) -> Option<(String, String)> {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let subject = subject(first);
    is_conventional(&subject).then(|| (subject, body(rest)))
}

/// A line without what decorates it: quotes, emphasis, a label.
fn subject(line: &str) -> String {
    let marks = ['`', '"', '\'', '*', ' '];
    let line = plain_text::one_line(&without_adverts(line));
    let bare = line.trim_matches(marks);
    let label = LABELS.iter().find(|label| {
        bare.get(..label.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(label))
    });
    bare[label.map_or(0, |label| label.len())..].trim_matches(marks).to_owned()
}

/// `type(scope)!: subject` within the limit.
fn is_conventional(line: &str) -> bool {
    has_form(line) && line.chars().count() <= MAX_SUBJECT
}

/// `type(scope)!: subject` of any length.
fn has_form(line: &str) -> bool {
    let Some((head, subject)) = line.split_once(": ") else { return false };
    let head = head.strip_suffix('!').unwrap_or(head);
    let (kind, scope) = match head.split_once('(') {
        Some((kind, scope)) => (kind, scope.strip_suffix(')')),
        None => (head, Some("none")),
    };
    let scope_ok = scope.is_some_and(|scope| {
        !scope.is_empty()
            && scope
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ','))
    });
    TYPES.contains(&kind) && scope_ok && !subject.trim().is_empty()
}

fn body(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in without_adverts(text).lines().map(str::trim_end) {
        wrap(line, &mut lines);
    }
    // After wrapping: it may have moved a forged trailer to the start of a line.
    lines.retain(|line| {
        !is_forgeable(line) && !is_advert(line) && !line.trim_start().starts_with("```")
    });
    let mut body = String::new();
    for line in &lines {
        let blank = line.trim().is_empty();
        if blank && (body.is_empty() || body.ends_with("\n\n")) {
            continue;
        }
        if body.len() + line.len() + 1 > MAX_BODY {
            break;
        }
        body.push_str(if blank { "" } else { line });
        body.push('\n');
    }
    body.trim().to_owned()
}

fn is_forgeable(line: &str) -> bool {
    let Some((name, _)) = line.split_once(':') else { return false };
    let name: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ' '))
        .map(|c| if c == '-' { '-' } else { c.to_ascii_lowercase() })
        .collect();
    FORGEABLE.contains(&name.trim().replace(['_', ' '], "-").as_str())
}

/// Breaks a line at spaces; what has none (an address, a path) stays whole.
fn wrap(line: &str, lines: &mut Vec<String>) {
    // In two parts a trailer is none.
    let is_credit = line.to_ascii_lowercase().starts_with("co-authored-by:");
    if is_credit || line.chars().count() <= WIDTH {
        lines.push(line.to_owned());
        return;
    }
    let mut current = String::new();
    for word in line.split(' ') {
        let width = current.chars().count() + 1 + word.chars().count();
        if !current.trim().is_empty() && width > WIDTH {
            lines.push(std::mem::take(&mut current));
        } else if !current.is_empty() {
            current.push(' ');
        }
        current.push_str(word);
    }
    lines.push(current);
}

/// The first line of the request, with the type its branch has.
fn fallback_subject(request: &str, order: &WorkOrderId) -> String {
    let kind = branch_kind(request);
    let text = plain_text::visible(request);
    let first = text.lines().map(plain_text::one_line).find(|line| !line.is_empty());
    let first = first.unwrap_or_else(|| format!("work order {order}"));
    if is_conventional(&first) {
        return first;
    }
    let room = MAX_SUBJECT - kind.len() - ": ".len();
    format!("{kind}: {}", plain_text::shorten(&first, room))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MAX_BODY, commit_message, is_conventional, unused};
    use crate::domain::WorkOrderId;

    fn order() -> WorkOrderId {
        "wo-1".parse().unwrap()
    }

    fn message(proposed: &str) -> String {
        commit_message(Some(proposed), "Add a button", &order())
    }

    #[test]
    fn a_proposal_in_conventional_form_is_kept() {
        let proposed = "feat(ui)!: add a button\n\nPeople asked for it.";
        assert_eq!(message(proposed), format!("{proposed}\n\nArchon-Work-Order: wo-1\n"));
    }

    #[test]
    fn a_proposal_inside_a_fence_or_quotes_is_unwrapped() {
        let expected = "fix: stop it\n\nBody.\n\nArchon-Work-Order: wo-1\n";
        assert_eq!(message("Sure!\n\n```text\nfix: stop it\n\nBody.\n```\n"), expected);
        assert_eq!(message("`fix: stop it`\n\nBody."), expected);
    }

    #[test]
    fn anything_else_becomes_a_message_from_the_request() {
        let long = format!("feat: {}", "x".repeat(80));
        for proposed in ["", "Added a button", "wip: x", "feat(): x", "feat:", "feat: ", &long] {
            assert_eq!(message(proposed), "feat: Add a button\n\nArchon-Work-Order: wo-1\n");
        }
        let none = commit_message(None, " \n", &order());
        assert_eq!(none, "feat: work order wo-1\n\nArchon-Work-Order: wo-1\n");
        assert!(
            commit_message(None, "Fix the login", &order()).starts_with("fix: Fix the login\n")
        );
    }

    #[test]
    fn nobody_is_made_to_vouch_for_the_commit() {
        let padding = "word ".repeat(14);
        let text = message(&format!(
            "fix: x\n\nSIGNED-OFF-BY: A <a@b>\nArchon-Work-Order: other\n {padding}Signed-off-by: B <b@c>\n\
             reviewed-by : C <c@d>\nCloses: 7"
        ));
        assert_eq!(text.matches("Archon-Work-Order:").count(), 1);
        let lower = text.to_lowercase();
        assert!(!lower.contains("\nsigned-off-by") && !lower.contains("reviewed-by"), "{text}");
        assert!(text.contains("Closes: 7"), "{text}");
    }

    #[test]
    fn a_person_is_credited_and_a_program_is_not() {
        let person = "Co-authored-by: Ada Augusta King, Countess of Lovelace <ada.lovelace@long.example.org>";
        let text = message(&format!(
            "fix: stop it\n\nBody.\n\n🤖 Generated with [Claude Code](https://claude.ai/code)\n\n\
             Co-Authored-By: Claude <noreply@anthropic.com>\n{person}"
        ));
        let expected = format!("fix: stop it\n\nBody.\n\n{person}\n\nArchon-Work-Order: wo-1\n");
        assert_eq!(text, expected);
    }

    #[test]
    fn a_message_is_found_behind_what_leads_to_it() {
        let expected = "fix: stop it\n\nBody.\n\nArchon-Work-Order: wo-1\n";
        for around in [
            "{}",
            "Here is the commit message:\n\n{}",
            "I'll look at the diff first.\n\nThe change stops it.\n\n{}",
            "---\nkind: commit\n---\n{}\n\nLet me know if you want changes!",
            "**Commit message:** {}",
            "Sure!\n```\n{}\n```\nIt follows the form you asked for.",
        ] {
            let proposed = around.replace("{}", "fix: stop it\n\nBody.");
            assert_eq!(message(&proposed), expected, "{proposed}");
            assert_eq!(unused(&proposed), None, "{proposed}");
        }
        let one_line = "fix: stop it 🤖 Generated with [Claude Code](https://claude.ai/code)";
        assert_eq!(message(one_line), "fix: stop it\n\nArchon-Work-Order: wo-1\n");
    }

    #[test]
    fn it_is_told_why_a_proposal_is_not_used() {
        for (proposed, why) in [
            ("", "the answer is empty"),
            ("Co-Authored-By: Claude <noreply@anthropic.com>", "the answer is empty"),
            ("I cannot do that.", "no paragraph of it begins with \"type(scope): subject\""),
            (
                "fix: this subject is so long that it does not fit into the line it has for it, by far",
                "its first line has 85 characters: expected at most 72",
            ),
        ] {
            assert_eq!(unused(proposed).as_deref(), Some(why), "{proposed}");
        }
    }

    proptest! {
        #[test]
        fn every_message_has_the_form(proposed in ".*", body in "[ -~\n]{0,400}", request in ".*") {
            for proposed in [None, Some(proposed.clone()), Some(format!("fix: {proposed}\n{body}"))] {
                let text = commit_message(proposed.as_deref(), &request, &order());
                let subject = text.lines().next().unwrap();
                prop_assert!(is_conventional(subject), "{subject:?}");
                prop_assert!(text.ends_with("\n\nArchon-Work-Order: wo-1\n"));
                prop_assert_eq!(text.to_lowercase().matches("\narchon-work-order:").count(), 1);
                prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
                prop_assert!(text.len() < MAX_BODY + 400);
                // What was taken from a proposal is a proposal that says the same.
                if proposed.as_deref().is_some_and(|proposed| unused(proposed).is_none()) {
                    prop_assert_eq!(commit_message(Some(&text), &request, &order()), text);
                }
            }
        }

        #[test]
        fn a_clean_message_is_left_alone(
            kind in "(feat|fix|docs)",
            subject in "[a-z]{1,10}( [a-z]{1,10}){0,4}",
            body in prop::collection::vec("[A-Z][a-z]{1,10}( [a-z]{1,8}){0,6}", 0..6),
        ) {
            let proposed = format!("{kind}: {subject}\n\n{}", body.join("\n\n"));
            let expected = format!("{}\n\nArchon-Work-Order: wo-1\n", proposed.trim());
            prop_assert_eq!(message(&proposed), expected);
        }
    }
}
