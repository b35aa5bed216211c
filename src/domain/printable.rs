//! Text of others on its way to a terminal or to a program that reads JSON: nothing in it moves the cursor, sets
//! a title, or turns the direction in which it is read.

use std::fmt::Write;

use super::is_invisible;

/// Whether a terminal obeys a character, or a reader does not see it.
fn is_unsafe(c: char) -> bool {
    c.is_control() || is_invisible(c)
}

/// The lines of a text as a terminal may show them: what is not seen is written out (`\u{202e}`). With
/// `colours` those stay that this program writes, and nothing else that begins like them.
pub fn for_terminal(text: &str, colours: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let colour = if colours && c == '\u{1b}' { colour_length(rest) } else { 0 };
        let length = colour.max(c.len_utf8());
        if colour > 0 || matches!(c, '\n' | '\t') || !is_unsafe(c) {
            out.push_str(&rest[..length]);
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "{}", c.escape_unicode());
        }
        rest = &rest[length..];
    }
    out
}

/// The length of a sequence that sets colours, at the beginning of a text.
fn colour_length(text: &str) -> usize {
    let Some(parameters) = text.strip_prefix("\u{1b}[") else { return 0 };
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';');
    match end {
        Some(end) if parameters[end..].starts_with('m') => end + 3,
        _ => 0,
    }
}

/// A document of JSON whose texts hold such characters only as escapes; it says the same.
pub fn for_json(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    for c in document.chars() {
        // Between its texts there are line ends alone.
        if c == '\n' || !is_unsafe(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string does not fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{for_json, for_terminal, is_unsafe};

    #[test]
    fn what_a_terminal_obeys_is_written_out_and_our_colours_stay() {
        let text = "a\u{1b}[31mred\u{1b}[0m\u{1b}]0;t\u{7}\u{9b}2J\u{202e}x\u{7f}\r\n\tb";
        let shown = for_terminal(text, true);
        assert_eq!(
            shown,
            "a\u{1b}[31mred\u{1b}[0m\\u{1b}]0;t\\u{7}\\u{9b}2J\\u{202e}x\\u{7f}\\u{d}\n\tb"
        );
        assert_eq!(for_terminal("\u{1b}[31mx\u{1b}[2J", false), "\\u{1b}[31mx\\u{1b}[2J");
        assert_eq!(for_terminal("\u{1b}[2Jx\u{1b}[3", true), "\\u{1b}[2Jx\\u{1b}[3");
    }

    proptest! {
        #[test]
        fn nothing_unsafe_is_left_and_json_says_the_same(text in ".{0,40}[\u{80}-\u{9f}\u{202a}-\u{202e}\u{e0001}]?.{0,9}") {
            let unsafe_left = |text: &str| {
                text.chars().any(|c| is_unsafe(c) && !matches!(c, '\n' | '\t'))
            };
            prop_assert!(!unsafe_left(&for_terminal(&text, false)));
            let document = serde_json::to_string_pretty(&[&text]).unwrap();
            let shown = for_json(&document);
            prop_assert!(!unsafe_left(&shown));
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), [text]);
        }
    }
}
