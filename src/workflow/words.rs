//! The author's own words for its change: they end the answer of the turn that made it, so that nobody has to
//! be asked for them in turns of their own.

use serde_json::{Value, json};

use super::order_run::OrderRun;
use crate::domain::StepName;

/// What an answer says for the delivery.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// For the commit.
    pub commit_message: Option<String>,
    /// For the pull request: title, blank line, description.
    pub pull_request: Option<String>,
}

impl Words {
    /// Takes them from the end of an answer; the second is the answer without them.
    pub fn take(answer: &str) -> (Self, String) {
        let (mut words, mut rest) = (Self::default(), answer.to_owned());
        for (name, word) in [
            ("commit-message", &mut words.commit_message),
            ("pull-request", &mut words.pull_request),
        ] {
            if let Some((before, inside, after)) = cut(&rest, name) {
                *word = Some(inside.trim().to_owned()).filter(|inside| !inside.is_empty());
                rest = format!("{}\n{}", before.trim_end(), after.trim_start());
            }
        }
        (words, rest.trim().to_owned())
    }

    /// Takes over what is said anew.
    pub fn update(&mut self, later: Self) {
        self.commit_message = later.commit_message.or(self.commit_message.take());
        self.pull_request = later.pull_request.or(self.pull_request.take());
    }

    /// Puts them into the output of a step.
    pub fn put_into(self, output: &mut Value) {
        for (name, word) in
            [("commit_message", self.commit_message), ("pull_request", self.pull_request)]
        {
            if let Some(word) = word {
                output[name] = json!(word);
            }
        }
    }
}

/// The text before, inside and after the last element of a name whose ends stand at the beginning of a line.
fn cut<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let begins_line = |at: usize| at == 0 || text[..at].ends_with('\n');
    let start = text.rmatch_indices(&open).map(|(at, _)| at).find(|at| begins_line(*at))?;
    let inside = start + open.len();
    let end = inside + text[inside..].find(&close)?;
    Some((&text[..start], &text[inside..end], &text[end + close.len()..]))
}

impl OrderRun<'_> {
    /// What the author said last under a name of [`Words::put_into`]: when it fixed what a reviewer had found,
    /// or when it made the change.
    pub(super) fn said_by_author(&self, name: &str) -> Option<String> {
        let steps = [StepName::PrpReview, StepName::Execute].into_iter();
        let mut outputs = steps.filter_map(|step| self.results.get(&step));
        outputs.find_map(|output| Some(output.get(name)?.as_str()?.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::Words;

    const ANSWER: &str = "I added it.\n\n<commit-message>\nfeat: add it\n\nWhy.\n</commit-message>\n\
        <pull-request>\nAdd it\n\n- `<commit-message>` is a tag\n</pull-request>\n";

    #[test]
    fn the_words_end_an_answer_and_are_no_part_of_its_text() {
        let (words, rest) = Words::take(ANSWER);
        assert_eq!(words.commit_message.as_deref(), Some("feat: add it\n\nWhy."));
        assert_eq!(words.pull_request.as_deref(), Some("Add it\n\n- `<commit-message>` is a tag"));
        assert_eq!(rest, "I added it.");
    }

    #[test]
    fn an_answer_without_them_is_left_alone() {
        for answer in [
            "I added it.",
            "It reads <commit-message>x</commit-message>.",
            "<commit-message>\nfeat: cut off",
            "</pull-request>\n<pull-request>",
        ] {
            assert_eq!(Words::take(answer), (Words::default(), answer.to_owned()), "{answer:?}");
        }
        let empty = "<commit-message>\n</commit-message>";
        assert_eq!(Words::take(empty), (Words::default(), String::new()));
    }

    #[test]
    fn later_words_replace_earlier_ones_and_keep_the_others() {
        let mut output = json!({ "passed": true });
        let (mut words, _) = Words::take(ANSWER);
        words.update(Words::take("<commit-message>\nfix: it\n</commit-message>").0);
        words.put_into(&mut output);
        assert_eq!(output["commit_message"], "fix: it");
        assert!(output["pull_request"].as_str().is_some_and(|text| text.starts_with("Add it")));
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(text in "(<commit-message>|</commit-message>|\n|<pull-request>|</pull-request>|ä| )*") {
            Words::take(&text);
        }
    }
}
