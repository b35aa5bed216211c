//! What an agent has begun and not ended, by its own messages: calls of tools, and tasks in the background.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::message::{blocks, parent, text};

/// Most calls, and most tasks, that are followed at a time, so that a stream of them costs no memory.
const MOST: usize = 1024;

/// The calls and tasks whose end has not been reported.
#[derive(Debug, Clone, Default)]
pub struct OpenWork {
    calls: BTreeMap<String, Call>,
    tasks: BTreeSet<String>,
}

/// Whose call it is.
#[derive(Debug, Clone)]
struct Call {
    /// The call that started the helper which makes this one; none of the agent itself.
    parent: Option<String>,
    /// The message that holds it.
    message: String,
}

impl OpenWork {
    /// Takes the next message, of the type `kind`.
    pub fn hear(&mut self, kind: &str, value: &Value) {
        match kind {
            "assistant" => self.hear_assistant(value),
            "user" => {
                for call in blocks(value).filter_map(|block| text(block, "tool_use_id")) {
                    self.end_call(call);
                }
            }
            "system" => self.hear_system(value),
            // The turn has ended, and with it what the agent itself has called.
            "result" => self.calls.retain(|_, call| call.parent.is_some()),
            _ => {}
        }
    }

    /// Whether there is any.
    pub fn is_any(&self) -> bool {
        !self.calls.is_empty() || !self.tasks.is_empty()
    }

    fn hear_assistant(&mut self, value: &Value) {
        let parent = parent(value);
        let message = value.get("message").and_then(|message| text(message, "id"));
        let message = message.unwrap_or_default();
        // The model is asked again when all it called has ended; CLI 2.1.138 does not report that end
        // inside of a helper.
        self.calls.retain(|_, call| call.parent.as_deref() != parent || call.message == message);
        for block in blocks(value).filter(|block| text(block, "type") == Some("tool_use")) {
            // Of a call without a name nobody could tell the end.
            let id = text(block, "id").filter(|id| !id.is_empty());
            if let Some(id) = id.filter(|_| self.calls.len() < MOST) {
                let (parent, message) = (parent.map(str::to_owned), message.to_owned());
                self.calls.insert(id.to_owned(), Call { parent, message });
            }
        }
    }

    fn hear_system(&mut self, value: &Value) {
        let Some(task) = text(value, "task_id") else { return };
        match text(value, "subtype") {
            Some("task_started") if self.tasks.len() < MOST => {
                self.tasks.insert(task.to_owned());
            }
            Some("task_notification") => {
                self.tasks.remove(task);
                if let Some(call) = text(value, "tool_use_id") {
                    self.end_call(call);
                }
            }
            Some("task_updated") => {
                let status = value.get("patch").and_then(|patch| text(patch, "status"));
                if matches!(status, Some("completed" | "failed" | "killed")) {
                    self.tasks.remove(task);
                }
            }
            _ => {}
        }
    }

    /// Ends a call, and what the helper behind it has called.
    fn end_call(&mut self, id: &str) {
        let mut ended = vec![id.to_owned()];
        while let Some(id) = ended.pop() {
            self.calls.remove(&id);
            let of_helper = self.calls.iter().filter(|(_, call)| call.parent.as_ref() == Some(&id));
            let inner: Vec<String> = of_helper.map(|(call, _)| call.clone()).collect();
            self.calls.retain(|call, _| !inner.contains(call));
            ended.extend(inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::OpenWork;

    fn call(id: &str, parent: Option<&str>) -> Value {
        json!({"type": "assistant", "parent_tool_use_id": parent,
            "message": {"id": format!("m-{id}"), "content": [{"type": "tool_use", "id": id}]}})
    }

    fn end(id: &str) -> Value {
        json!({"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": id}]}})
    }

    fn task(subtype: &str, id: &str) -> Value {
        json!({"type": "system", "subtype": subtype, "task_id": id, "tool_use_id": "t"})
    }

    fn is_any(messages: &[Value]) -> bool {
        let mut work = OpenWork::default();
        for message in messages {
            work.hear(message["type"].as_str().unwrap(), message);
        }
        work.is_any()
    }

    #[test]
    fn a_tool_runs_from_its_call_to_its_result() {
        assert!(is_any(&[call("t", None)]));
        assert!(!is_any(&[call("t", None), end("t")]));
        assert!(!is_any(&[call("", None)]));
    }

    #[test]
    fn calls_of_one_message_end_each_by_itself() {
        let mut second = call("u", None);
        second["message"]["id"] = json!("m-t");
        let both = [call("t", None), second];
        assert!(is_any(&[&both[..], &[end("t")]].concat()));
        assert!(!is_any(&[&both[..], &[end("t"), end("u")]].concat()));
    }

    #[test]
    fn the_calls_of_a_helper_end_with_it() {
        let helper = [call("t", None), call("u", Some("t"))];
        assert!(is_any(&helper));
        assert!(!is_any(&[&helper[..], &[end("t")]].concat()));
        let silent = json!({"type": "assistant", "parent_tool_use_id": "t",
            "message": {"id": "m-2", "content": [{"type": "text", "text": "fine"}]}});
        let background = [call("t", None), end("t"), call("u", Some("t"))];
        assert!(is_any(&background));
        assert!(!is_any(&[&background[..], &[silent]].concat()));
        assert!(!is_any(&[&background[..], &[task("task_notification", "b")]].concat()));
    }

    #[test]
    fn a_task_is_open_until_it_reports() {
        let started = [call("t", None), task("task_started", "b"), end("t")];
        assert!(is_any(&started));
        let mut ended = task("task_updated", "b");
        ended["patch"] = json!({"status": "running"});
        assert!(is_any(&[&started[..], &[ended.clone()]].concat()));
        ended["patch"] = json!({"status": "killed"});
        for end in [task("task_notification", "b"), ended] {
            assert!(!is_any(&[&started[..], &[end]].concat()));
        }
        assert!(is_any(&[&started[..], &[task("task_notification", "c")]].concat()));
    }

    #[test]
    fn a_result_ends_the_calls_of_its_turn_and_no_task() {
        let result = json!({"type": "result", "subtype": "success"});
        assert!(!is_any(&[call("t", None), result.clone()]));
        assert!(is_any(&[call("t", None), task("task_started", "b"), result]));
    }
}
