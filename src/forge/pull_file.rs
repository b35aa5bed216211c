//! The Markdown file that is a pull request of a `file://` remote: a head of `name: value` lines,
//! then title and body.

use super::PullRequest;

/// What the runner needs from a file to recognise it. The rest is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PullFile {
    pub(super) head: String,
    pub(super) base: String,
    /// `open`, or `merged` or `closed` where a person wrote that.
    pub(super) state: String,
}

/// The whole file. Values are JSON strings where they could hold anything, which is also YAML.
pub(super) fn render(number: u64, request: &PullRequest) -> String {
    let title = serde_json::Value::from(request.title.as_str());
    let base = serde_json::Value::from(request.base.as_str());
    format!(
        "---\nnumber: {number}\nstate: open\ntitle: {title}\nhead: {}\nbase: {base}\norder: {}\n---\n\n\
         # {}\n\n{}",
        request.head, request.order, request.title, request.body
    )
}

/// Reads the head of a file; nothing when it is not one of ours.
pub(super) fn parse(text: &str) -> Option<PullFile> {
    let mut lines = text.lines();
    if lines.next()?.trim_end() != "---" {
        return None;
    }
    let (mut head, mut base, mut state) = (None, None, None);
    for line in lines {
        if line.trim_end() == "---" {
            let state = state.unwrap_or("open".to_owned());
            return Some(PullFile { head: head?, base: base.unwrap_or_default(), state });
        }
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        // A person may have written it without quotes.
        let quoted: Option<String> = serde_json::from_str(value).ok();
        let value = quoted.unwrap_or_else(|| value.trim_matches('"').to_owned());
        match name.trim() {
            "head" => head = Some(value),
            "base" => base = Some(value),
            "state" => state = Some(value),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{PullFile, parse, render};
    use crate::forge::PullRequest;

    proptest! {
        #[test]
        fn what_is_written_is_found_again(title in "\\PC*", base in "\\PC*", body in ".*") {
            let request = PullRequest {
                order: "wo-1".parse().unwrap(),
                head: "feat/x".parse().unwrap(),
                base: base.clone(),
                title,
                body,
                commit: "c".repeat(40),
                reopen: false,
            };
            let expected =
                PullFile { head: "feat/x".to_owned(), base, state: "open".to_owned() };
            prop_assert_eq!(parse(&render(1, &request)), Some(expected));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".*") {
            let _ = parse(&text);
            let _ = parse(&format!("---\n{text}\n---"));
        }
    }
}
