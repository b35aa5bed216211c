//! What an agent answered: the texts with which its turns ended, in order.
//!
//! One process may take several turns: it is woken when something in the background has ended. What it said on
//! the way to a tool is no answer ("Let me look at the code first."), and no answer is an empty one.

use serde_json::Value;

use super::message::{blocks, parent, text};

/// Longest answer that is kept, in bytes; of a longer one the end, where the conclusion stands.
pub const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// The answer so far.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    turns: Vec<Turn>,
    /// What was said last, while nothing has been called since.
    said: Option<String>,
    has_result: bool,
}

/// The end of one turn.
#[derive(Debug, Clone)]
struct Turn {
    text: String,
    /// Whether a result line told it.
    told: bool,
}

impl Answer {
    /// Takes the next message, of the type `kind`.
    pub fn hear(&mut self, kind: &str, value: &Value) {
        match kind {
            // What helpers say is for the agent.
            "assistant" | "user" if parent(value).is_some() => {}
            "assistant" => self.hear_assistant(value),
            // Something for it to go on with.
            "user" => self.said = None,
            // It was woken. CLI 2.1.138 prints no result of a turn that leaves a helper in the background,
            // and newer versions print it when the helper has ended.
            "system" if text(value, "subtype") == Some("init") => {
                if let Some(said) = self.said.take() {
                    self.push(&said, false);
                }
            }
            "result" => self.hear_result(value),
            _ => {}
        }
    }

    /// The texts, at most [`MAX_ANSWER`] bytes of them. Where no result line ever came, what was said last
    /// and not followed by a call is one of them.
    pub fn text(&self) -> String {
        let open = self.said.as_deref().filter(|_| !self.has_result);
        let texts: Vec<&str> = self.turns.iter().map(|turn| &*turn.text).chain(open).collect();
        end_of(&texts.join("\n\n")).to_owned()
    }

    fn hear_assistant(&mut self, value: &Value) {
        if value.get("error").is_some_and(Value::is_string) {
            self.said = None;
            return;
        }
        for block in blocks(value) {
            match text(block, "type") {
                Some("text") => self.said = text(block, "text").map(str::to_owned),
                Some("tool_use") => self.said = None,
                _ => {}
            }
        }
    }

    fn hear_result(&mut self, value: &Value) {
        self.said = None;
        self.has_result = true;
        let is_error = value.get("is_error").and_then(Value::as_bool).unwrap_or_default();
        let Some(told) = text(value, "result").filter(|_| !is_error) else { return };
        let is_same = |turn: &&mut Turn| !turn.told && turn.text.trim() == told.trim();
        match self.turns.iter_mut().find(is_same) {
            Some(turn) => turn.told = true,
            None => self.push(told, true),
        }
    }

    fn push(&mut self, said: &str, told: bool) {
        if said.trim().is_empty() {
            return;
        }
        self.turns.push(Turn { text: end_of(said).to_owned(), told });
        let bytes = |turns: &[Turn]| turns.iter().map(|turn| turn.text.len()).sum::<usize>();
        while bytes(&self.turns) > 2 * MAX_ANSWER {
            self.turns.remove(0);
        }
    }
}

/// The end of a text, at most [`MAX_ANSWER`] bytes of it.
pub fn end_of(text: &str) -> &str {
    let start = text.len().saturating_sub(MAX_ANSWER);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    &text[start..]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Answer, MAX_ANSWER};

    fn says(text: &str) -> Value {
        json!({"type": "assistant", "message": {"content": [{"type": "text", "text": text}]}})
    }

    fn calls() -> Value {
        json!({"type": "assistant", "message": {"content": [{"type": "tool_use", "id": "t"}]}})
    }

    fn result(text: &str) -> Value {
        json!({"type": "result", "subtype": "success", "is_error": false, "result": text})
    }

    fn init() -> Value {
        json!({"type": "system", "subtype": "init"})
    }

    fn answer(messages: &[Value]) -> String {
        let mut answer = Answer::default();
        for message in messages {
            answer.hear(message["type"].as_str().unwrap(), message);
        }
        answer.text()
    }

    #[test]
    fn the_results_of_all_turns_are_the_answer() {
        let plan = [init(), says("1. Do it."), result("1. Do it.")];
        let woken = [init(), says("The tests passed."), result("The tests passed.")];
        let both = [plan, woken].concat();
        assert_eq!(answer(&both), "1. Do it.\n\nThe tests passed.");
    }

    #[test]
    fn a_remark_on_the_way_is_no_answer() {
        let on_the_way = [says("Let me look at the code first."), calls(), result("")];
        assert_eq!(answer(&on_the_way), "");
        assert_eq!(answer(&on_the_way[..2]), "");
        let error = json!({"type": "result", "is_error": true, "result": "API Error: 529"});
        assert_eq!(answer(&[says("Let me look."), error]), "");
    }

    #[test]
    fn a_turn_whose_result_comes_late_or_never_is_heard_once() {
        let turns = [init(), says("The plan."), init(), says("All done.")];
        let late = [result("The plan."), result("All done.")];
        assert_eq!(answer(&[&turns[..], &late].concat()), "The plan.\n\nAll done.");
        assert_eq!(answer(&[&turns[..], &late[1..]].concat()), "The plan.\n\nAll done.");
    }

    #[test]
    fn what_a_helper_says_is_no_answer() {
        let mut helper = says("sub");
        helper["parent_tool_use_id"] = json!("t");
        assert_eq!(answer(&[says("mine"), helper]), "mine");
    }

    #[test]
    fn of_a_long_answer_the_end_is_kept() {
        let long = "é".repeat(MAX_ANSWER);
        let all = answer(&[result(&long), result(&long), result(&long), result("the end")]);
        assert!(all.len() <= MAX_ANSWER && all.ends_with("é\n\nthe end"));
    }
}
