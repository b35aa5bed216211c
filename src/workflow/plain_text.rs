//! Text from models and strangers before it goes where people or other programs trust it: nothing
//! in it may be invisible, and its length has an end.

use crate::domain::is_invisible;

/// The text without control and invisible characters, with `\n` as the only line end.
///
/// Invisible are zero-width characters, direction marks and tags, with which text can say one
/// thing to a person and another to a program.
pub(super) fn visible(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
    text.chars()
        .filter(|c| *c == '\n' || *c == '\t' || !(c.is_control() || is_invisible(*c)))
        .collect()
}

/// One line: every run of white space is one space.
pub(super) fn one_line(text: &str) -> String {
    visible(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// At most `limit` characters; what is cut ends at a word where possible, with `…`.
pub(super) fn shorten(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let cut: String = text.chars().take(limit.saturating_sub(1)).collect();
    let cut = match cut.rsplit_once(char::is_whitespace) {
        Some((words, _)) if words.len() * 2 > cut.len() => words,
        _ => &cut,
    };
    format!("{}…", cut.trim_end())
}

/// The text without the HTML comments whose content is `unwanted`. Taking one out can join the
/// halves of another, so this repeats until none is left; one without an end reaches to the end.
pub(super) fn without_comments(text: &str, unwanted: impl Fn(&str) -> bool) -> String {
    let mut text = text.to_owned();
    loop {
        let mut kept = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(start) = rest.find("<!--") {
            let inside = &rest[start + 4..];
            let (content, after) = inside.split_once("-->").unwrap_or((inside, ""));
            kept.push_str(&rest[..start]);
            if !unwanted(content) {
                // Only the opening is passed over: the content may hold an unwanted one.
                kept.push_str("<!--");
                rest = inside;
                continue;
            }
            rest = after;
        }
        kept.push_str(rest);
        if kept.len() == text.len() {
            return kept;
        }
        text = kept;
    }
}

/// The contents of fenced code blocks, in order, each without its fences.
pub(super) fn fenced_blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, Vec<&str>)> = None;
    for line in text.lines() {
        let bare = line.trim();
        match &mut open {
            Some((fence, lines)) => {
                if bare == *fence {
                    blocks.push(lines.join("\n"));
                    open = None;
                } else {
                    lines.push(line);
                }
            }
            None if bare.starts_with("```") => {
                let length = bare.len() - bare.trim_start_matches('`').len();
                open = Some((&bare[..length], Vec::new()));
            }
            None => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{fenced_blocks, one_line, shorten, visible, without_comments};

    #[test]
    fn blocks_are_found_with_and_without_a_language() {
        let text = "Here:\n```text\na\nb\n```\nand\n````\n```\n````\n```\nopen";
        assert_eq!(fenced_blocks(text), ["a\nb", "```"]);
    }

    #[test]
    fn comments_that_join_up_are_taken_out_too() {
        let text = "a<!<!-- x -->-- y -->b<!-- z";
        assert_eq!(without_comments(text, |_| true), "ab");
        assert_eq!(without_comments("<!-- a <!-- b -->", |c| c == " b "), "<!-- a ");
    }

    proptest! {
        #[test]
        fn cleaned_text_keeps_its_promises(text in ".*", limit in 1_usize..50) {
            prop_assert!(!visible(&text).chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
            prop_assert!(!one_line(&text).chars().any(char::is_control));
            prop_assert!(shorten(&text, limit).chars().count() <= limit);
            prop_assert!(!without_comments(&text, |_| true).contains("<!--"));
            fenced_blocks(&text);
        }
    }
}
