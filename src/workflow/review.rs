//! The verdict of `prp-review`: the JSON object at the end of the agent's answer.
//!
//! Only the end counts: an answer that merely quotes a verdict, from the code it reads or from its
//! own prompt, has not given one.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{
    answer::{Lead, unwrapped},
    plain_text,
};
use crate::domain::ErrorClass;

/// How many `{` from the end of an answer are tried: far more than a verdict has issues. Each try
/// is bounded by the parser's depth, so that no answer keeps the worker busy.
const MAX_TRIES: usize = 2_000;
/// How much of the end of an answer is looked at, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// Most issues that are handed back at once.
const MAX_HANDED_BACK: usize = 50;
/// Longest description that is handed back, in characters.
const MAX_DESCRIPTION: usize = 2_000;

/// What to ask for when an answer has no verdict.
pub const ASK_AGAIN: &str = "Your answer did not end with the verdict. Do not review again. Answer \
    with exactly one JSON object and nothing else, of this form: {\"passed\": true or false, \
    \"summary\": \"text\", \"issues\": [{\"severity\": \"blocker\" or \"major\" or \"minor\", \
    \"file\": \"path\", \"line\": 1, \"description\": \"text\"}]}. \"file\" and \"line\" may be left \
    out, \"issues\" may be empty.";

/// How much an issue matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Must be fixed before anybody merges this.
    Blocker,
    /// Should be fixed soon.
    Major,
    /// Polish.
    Minor,
}

/// One thing the reviewer found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Issue {
    /// How much it matters.
    pub severity: Severity,
    /// Path from the root of the repository.
    #[serde(default)]
    pub file: Option<String>,
    /// Line in the file, from 1.
    #[serde(default, deserialize_with = "line")]
    pub line: Option<u64>,
    /// What is wrong.
    #[serde(default)]
    pub description: String,
}

/// A verdict.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Review {
    /// No blocker was found.
    pub passed: bool,
    /// What the reviewer thinks, for people.
    #[serde(default)]
    pub summary: String,
    /// What the reviewer found.
    #[serde(default)]
    pub issues: Vec<Issue>,
    /// The reviewer let a change pass in which it had found blockers.
    #[serde(skip)]
    pub overruled: bool,
}

/// Why an answer gives no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The answer does not end with a JSON object.
    #[error(
        "the review does not end with a JSON object: expected {{\"passed\", \"summary\", \"issues\"}}"
    )]
    Missing,
    /// It ends with another object.
    #[error("the JSON object at the end of the review is not a verdict: {0}")]
    Shape(String),
}

impl ReviewError {
    /// The class under which the failure is stored.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }
}

impl Review {
    /// The issues that keep the change from being delivered.
    pub fn blockers(&self) -> impl Iterator<Item = &Issue> {
        self.issues.iter().filter(|issue| issue.severity == Severity::Blocker)
    }
}

/// Reads the verdict from the agent's answer. One that says it passed and lists blockers did not.
///
/// # Errors
/// There is none; [`ASK_AGAIN`] is what to ask for.
pub fn parse(text: &str) -> Result<Review, ReviewError> {
    // What an agent adds by itself, such as its signature, is nothing that follows.
    let found = last_object(text).or_else(|| last_object(&unwrapped(end_of(text), Lead::Talking)));
    let object = found.ok_or(ReviewError::Missing)?;
    let mut review: Review =
        serde_json::from_value(object).map_err(|error| ReviewError::Shape(error.to_string()))?;
    review.overruled = review.passed && review.blockers().next().is_some();
    review.passed &= !review.overruled;
    Ok(review)
}

/// The prompt that hands the blockers back; everything that was found when none is a blocker.
pub fn hand_back(review: &Review) -> String {
    let mut issues: Vec<&Issue> = review.blockers().collect();
    if issues.is_empty() {
        issues = review.issues.iter().collect();
    }
    let mut prompt =
        "A reviewer looked at your change and found problems that must be fixed before \
        it can be delivered. Fix each of them in the working tree, keep everything else as it is, \
        and run the tests again. If one of them is mistaken, leave the code and say why. Do not \
        commit. If the commit message or the pull request you proposed is no longer true, end your \
        answer with both anew, in the same form.\n"
            .to_owned();
    if !review.summary.is_empty() {
        prompt.push_str("\nThe reviewer's summary: ");
        prompt.push_str(&plain_text::shorten(&review.summary, MAX_DESCRIPTION));
        prompt.push('\n');
    }
    for (i, issue) in issues.iter().take(MAX_HANDED_BACK).enumerate() {
        let place = match (&issue.file, issue.line) {
            (Some(file), Some(line)) => format!("{file}:{line}: "),
            (Some(file), None) => format!("{file}: "),
            (None, _) => String::new(),
        };
        let description = plain_text::shorten(&issue.description, MAX_DESCRIPTION);
        let number = (i + 1).to_string();
        for part in ["\n", &number, ". ", &place, &description] {
            prompt.push_str(part);
        }
    }
    prompt.push('\n');
    prompt
}

/// The last outermost JSON object, if nothing but white space and the end of a fence follows it.
fn last_object(text: &str) -> Option<Value> {
    let mut rest = end_of(text);
    // Beginning inside an object does no harm: something follows every object inside another.
    if let Some((brace, _)) = rest.rmatch_indices('{').nth(MAX_TRIES) {
        rest = &rest[brace..];
    }
    let (mut last, mut tail) = (None, rest);
    while let Some(brace) = rest.find('{') {
        rest = &rest[brace..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        if let Some(Ok(value)) = values.next() {
            rest = &rest[values.byte_offset()..];
            (last, tail) = (Some(value), rest);
        } else {
            rest = &rest[1..];
        }
    }
    last.filter(|_| tail.chars().all(|c| c.is_whitespace() || matches!(c, '`' | '~')))
}

/// As much of the end of an answer as is looked at.
fn end_of(text: &str) -> &str {
    let mut start = text.len().saturating_sub(MAX_ANSWER);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

impl<'de> Deserialize<'de> for Severity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        match word.to_ascii_lowercase().as_str() {
            "blocker" => Ok(Self::Blocker),
            "major" => Ok(Self::Major),
            "minor" => Ok(Self::Minor),
            _ => Err(serde::de::Error::custom(format!(
                "severity {word:?} is unknown: expected blocker, major or minor"
            ))),
        }
    }
}

/// A line is help, not evidence: one in another form (`"12-15"`, `null`) is read as far as possible.
fn line<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let digits =
        |text: &str| text.split(|c: char| !c.is_ascii_digit()).find_map(|d| d.parse().ok());
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => digits(&text),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Issue, Review, ReviewError, Severity, hand_back, parse};

    const VERDICT: &str = r#"{"passed": true, "summary": "Fine.", "issues": []}"#;

    #[test]
    fn a_verdict_is_found_at_the_end_alone_and_in_a_fence() {
        for text in [
            VERDICT.to_owned(),
            format!("I read `fn main() {{}}` and {{\"a\": 1}}.\n\n{VERDICT}\n"),
            format!("Here:\n```json\n{VERDICT}\n```\n"),
            format!("```json\n{{\"passed\": false, \"summary\": \"first\"}}\n```\nNo:\n{VERDICT}"),
            format!("{VERDICT}\n\n🤖 Generated with [Claude Code](https://claude.ai/code)\n"),
            format!("Here:\n```json\n{VERDICT}\n```\n\nLet me know if you want more detail."),
            format!("---\nkind: review\n---\n{VERDICT}"),
        ] {
            assert_eq!(parse(&text).map(|review| review.summary), Ok("Fine.".to_owned()), "{text}");
        }
    }

    #[test]
    fn a_verdict_that_is_only_quoted_does_not_count() {
        let text = format!("The file says {VERDICT}, which is odd.");
        assert_eq!(parse(&text), Err(ReviewError::Missing));
        assert_eq!(parse(&format!("{VERDICT} {{")), Err(ReviewError::Missing));
        assert_eq!(parse("All good!"), Err(ReviewError::Missing));
        assert!(matches!(parse(r#"{"passed": "yes"}"#), Err(ReviewError::Shape(_))));
        let unknown = r#"{"passed": true, "issues": [{"severity": "meh", "description": "x"}]}"#;
        let error = parse(unknown).unwrap_err();
        assert!(error.to_string().contains("\"meh\""), "{error}");
    }

    #[test]
    fn blockers_outweigh_the_word_passed() {
        let text = r#"{"passed": true, "summary": "s", "extra": {"passed": true}, "issues": [
            {"severity": "Blocker", "file": "a.rs", "line": "12-15", "description": "d", "x": 1},
            {"severity": "minor", "line": null, "description": "e"}]}"#;
        let review = parse(text).unwrap();
        assert!(!review.passed && review.overruled);
        let blockers: Vec<&Issue> = review.blockers().collect();
        assert_eq!(blockers.len(), 1);
        assert_eq!((blockers[0].file.as_deref(), blockers[0].line), (Some("a.rs"), Some(12)));
        let prompt = hand_back(&review);
        assert!(prompt.contains("1. a.rs:12: d"), "{prompt}");
        assert!(!prompt.contains("2. "), "{prompt}");
    }

    #[test]
    fn a_failed_review_without_blockers_hands_everything_back() {
        let issue = Issue {
            severity: Severity::Major,
            file: None,
            line: None,
            description: "slow".to_owned(),
        };
        let review =
            Review { passed: false, summary: String::new(), issues: vec![issue], overruled: false };
        assert!(hand_back(&review).contains("1. slow"));
    }

    #[test]
    fn many_open_braces_are_read_in_reasonable_time() {
        assert!(parse(&"{".repeat(300_000)).is_err());
        assert!(parse(&r#"{"a":["#.repeat(50_000)).is_err());
        let many = r#"{"severity": "minor"},"#.repeat(5_000);
        let verdict = format!(r#"{{"passed": true, "issues": [{many}{{"severity": "minor"}}]}}"#);
        assert!(parse(&verdict).is_err());
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(text in ".*", json in r#"[{}\[\]":,a-z0-9 `\n]{0,200}"#) {
            for text in [text.clone(), json.clone(), format!("{text}{json}{VERDICT}{text}")] {
                if let Ok(review) = parse(&text) {
                    hand_back(&review);
                }
            }
        }

        #[test]
        fn prose_before_it_does_not_hide_the_verdict(text in "[^{}]*") {
            let answer = format!("{text}\n{VERDICT}");
            prop_assert!(parse(&answer).is_ok());
        }
    }
}
