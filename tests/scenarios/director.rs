//! Chooses what the fake model says: by the prompt that it was asked last, turn after turn.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    format::{self, Scenario},
    messages_api::{Block, Director, Refusal, Reply, Turn, Usage},
};

/// The kinds of prompts, and the words of our own by which each is known.
pub const KINDS: [(&str, &str); 8] = [
    ("planning", "# Plan the work"),
    ("execute", "# Carry out the plan"),
    ("follow-up", "# Go on with the change"),
    ("review", "# Review the change"),
    ("verdict", "Your answer did not end with the verdict"),
    ("fix", "A reviewer looked at your change and found problems"),
    ("commit", "# Propose a commit message"),
    ("pull-request", "# Propose a title and a description"),
];
/// Prompts that no script knows, such as those the CLI makes up.
pub const OTHER: &str = "other";

/// What a good model says where the scenario does not say otherwise.
const HEALTHY: &str = r#"
planning: [{text: "1. Write hello.txt."}]
execute: [{write: {hello.txt: "hello\n"}}, {text: "I wrote hello.txt.WORDS"}]
follow-up: [{write: {hello.txt: "hello again\n"}}, {text: "It says hello again."}]
review: [{text: '{"passed": true, "summary": "good", "issues": []}'}]
verdict: [{text: '{"passed": true, "summary": "good", "issues": []}'}]
fix: [{text: "I fixed it."}]
commit: [{text: "feat: say hello\n\nPeople asked for it."}]
pull-request: [{text: "Say hello\n\nThis adds hello.txt."}]
other: [{text: "ok"}]
"#;

/// How it ends the answer in which it made the change, unless it is asked for these words apart; as YAML
/// writes it.
const WORDS: &str = r"\n\n<commit-message>\nfeat: say hello\n\nPeople asked for it.\n</commit-message>\n<pull-request>\nSay hello\n\nThis adds hello.txt.\n</pull-request>";

/// The kind of each request so far, in order.
pub type Kinds = Arc<Mutex<Vec<String>>>;

/// A director for a scenario whose order works in `checkout`.
pub fn director(scenario: &Scenario, checkout: PathBuf) -> (Director, Kinds) {
    let is_asked = ["commit", "pull-request"].iter().any(|kind| scenario.turns.contains_key(*kind));
    let healthy = HEALTHY.replace("WORDS", if is_asked { "" } else { WORDS });
    let mut scripts: BTreeMap<String, Vec<format::Turn>> =
        serde_norway::from_str(&healthy).unwrap();
    scripts.extend(scenario.turns.clone());
    let words =
        scripts.keys().map(|key| (key.clone(), words_of(key).to_owned())).collect::<Vec<_>>();
    let kinds = Kinds::default();
    let told = kinds.clone();
    let mut scripts: BTreeMap<String, Script> =
        scripts.into_iter().map(|(kind, turns)| (kind, Script::new(turns))).collect();
    let director = move |request: &Value| {
        let kind = kind_of(request, &words).unwrap_or(OTHER).to_owned();
        let turn = spoken(scripts.get_mut(&kind).unwrap().next(), &checkout);
        told.lock().unwrap().push(kind);
        turn
    };
    (Box::new(director), kinds)
}

fn words_of(key: &str) -> &str {
    KINDS.iter().find(|(kind, _)| *kind == key).map_or(key, |(_, words)| words)
}

/// The texts that a request holds of its user, in order; not what tools answered.
fn user_texts(request: &Value) -> Vec<&str> {
    let messages = request["messages"].as_array().map_or(&[][..], Vec::as_slice);
    let of_user = messages.iter().filter(|message| message["role"] == "user");
    of_user.flat_map(|message| texts(&message["content"])).collect()
}

/// All that a request tells the model: the system's words, what was said so far, and how its tools are
/// described.
pub fn all_texts(request: &Value) -> Vec<&str> {
    let list = |key: &str| request[key].as_array().map_or(&[][..], Vec::as_slice);
    let said = list("messages").iter().flat_map(|message| texts(&message["content"]));
    let tools = list("tools").iter().filter_map(|tool| tool["description"].as_str());
    texts(&request["system"]).into_iter().chain(said).chain(tools).collect()
}

fn texts(content: &Value) -> Vec<&str> {
    match content {
        Value::String(text) => vec![text.as_str()],
        Value::Array(blocks) => blocks.iter().filter_map(|block| block["text"].as_str()).collect(),
        _ => Vec::new(),
    }
}

/// The key whose words were said last: in one text the words of the scenario's own come first.
fn kind_of<'a>(request: &Value, words: &'a [(String, String)]) -> Option<&'a str> {
    let texts = user_texts(request);
    let last = |words: &str| texts.iter().rposition(|text| text.contains(words));
    let found = words.iter().filter(|(key, _)| key != OTHER).filter_map(|(key, words)| {
        let own = key == words;
        last(words).map(|at| ((at, own), key.as_str()))
    });
    found.max().map(|(_, key)| key)
}

/// The turns of one kind of prompt, and where the fake is in them.
struct Script {
    turns: Vec<format::Turn>,
    at: usize,
    said: usize,
    since: Option<Instant>,
}

impl Script {
    fn new(turns: Vec<format::Turn>) -> Self {
        Self { turns, at: 0, said: 0, since: None }
    }

    /// The turn for the next request; the last one stays.
    fn next(&mut self) -> &format::Turn {
        while self.is_done() && self.at + 1 < self.turns.len() {
            (self.at, self.said, self.since) = (self.at + 1, 0, None);
        }
        self.said += 1;
        self.since.get_or_insert_with(Instant::now);
        &self.turns[self.at]
    }

    fn is_done(&self) -> bool {
        let turn = &self.turns[self.at];
        match turn.lasts {
            Some(lasts) => self.since.is_some_and(|since| since.elapsed() >= lasts.0),
            None => self.said >= turn.times.unwrap_or(1),
        }
    }
}

fn spoken(turn: &format::Turn, checkout: &Path) -> Turn {
    if turn.hang {
        return Turn::Hang;
    }
    if let Some(error) = &turn.error {
        let headers = error.headers.iter().map(|(name, value)| (name.clone(), value.0.clone()));
        return Turn::Refusal(Refusal {
            status: error.status,
            kind: error.kind.clone(),
            message: error.message.clone(),
            body: error.body.clone(),
            headers: headers.collect(),
        });
    }
    let place = |text: &str| text.replace("{checkout}", &checkout.display().to_string());
    let mut blocks = Vec::new();
    blocks.extend(turn.thinking.iter().map(|text| Block::Thinking(text.clone())));
    let words = turn.text.as_ref().map(|text| text.repeat(turn.repeat.unwrap_or(1)));
    blocks.extend(words.map(Block::Text));
    if let Some(command) = &turn.bash {
        let mut input = json!({"command": place(command), "description": "Runs a command"});
        if let Some(timeout) = turn.timeout {
            input["timeout"] = timeout.into();
        }
        if turn.background {
            input["run_in_background"] = true.into();
        }
        blocks.push(Block::Tool("Bash".to_owned(), input));
    }
    for (path, content) in &turn.write {
        let path = checkout.join(place(path)).display().to_string();
        let input = json!({"file_path": path, "content": content});
        blocks.push(Block::Tool("Write".to_owned(), input));
    }
    for tool in &turn.tools {
        blocks.push(Block::Tool(tool.name.clone(), placed(&tool.input, &place)));
    }
    let format::Usage { input, output, cache_read, cache_write_5m, cache_write_1h } = turn.usage;
    Turn::Reply(Reply {
        blocks,
        stop: turn.stop.clone(),
        usage: Usage { input, output, cache_read, cache_write_5m, cache_write_1h },
        delay: turn.delay.map_or(Duration::ZERO, |delay| delay.0),
        pace: turn.pace.map(|pace| pace.0),
        cut: turn.cut,
        broken: turn.broken.clone(),
        stall: turn.stall,
    })
}

/// An input of a tool with the path of the checkout in its texts.
fn placed(input: &Value, place: &impl Fn(&str) -> String) -> Value {
    match input {
        Value::String(text) => place(text).into(),
        Value::Array(list) => list.iter().map(|value| placed(value, place)).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.clone(), placed(value, place))).collect()
        }
        other => other.clone(),
    }
}
