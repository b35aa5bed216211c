//! What the real Claude Code CLI consumed is what the order says: the fake that served it keeps the bill.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    sync::{Arc, Mutex},
};

use archon_awo::domain::Usage;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::{PgPool, types::Json};

use crate::{
    claude_cli::claude_cli_version,
    harness::{Harness, until},
    messages_api::{self, Director, MessagesApi, Reply, Script, Served, Turn},
    patience::{counters, metrics},
};

const NEWER: &str = "2.1.332";
const OLDER: &str = "2.1.138";
const ORDER: &str = "wo-c057";
const ALL: &str = "create-branch planning execute prp-review commit create-pr";
const SHORT: &str = "create-branch planning execute";

/// Words of our command files, by which the fake knows what it is asked for, and of a subagent's prompt.
const PLANNING: &str = "# Plan the work";
const EXECUTE: &str = "# Carry out the plan";
const FOLLOW_UP: &str = "# Go on with the change";
const REVIEW: &str = "# Review the change";
const FIX: &str = "A reviewer looked at your change";
const HELPER: &str = "Look around, helper";

/// US dollars for a million tokens, as a version of the CLI reckons: input, output, read from the cache, written
/// to it for five minutes and for an hour.
const PRICES: [(&str, [f64; 5]); 4] = [
    ("claude-opus-5-5", [4.0, 20.0, 0.2, 5.0, 8.0]),
    ("claude-haiku-5-5", [0.1, 0.5, 0.01, 0.125, 0.2]),
    ("claude-opus-4-7", [5.0, 25.0, 0.5, 6.25, 6.25]),
    ("claude-haiku-4-5-20251001", [1.0, 5.0, 0.1, 1.25, 1.25]),
];

/// A worker with the real CLI, and the fake it talks to, which serves no two requests alike.
struct Place {
    harness: Harness,
    api: MessagesApi,
    scripts: Arc<Mutex<Vec<Script>>>,
}

impl Place {
    async fn new(pool: PgPool, version: &str) -> Self {
        let mut harness = Harness::new(pool);
        let scripts = Arc::<Mutex<Vec<Script>>>::default();
        let api = MessagesApi::directed(director(scripts.clone())).await;
        harness.set("AWO_AGENT", "claude");
        harness.set("CLAUDE_CLI_PATH", claude_cli_version(version).display().to_string());
        harness.set("ANTHROPIC_BASE_URL", api.url.clone());
        harness.set("ANTHROPIC_API_KEY", "sk-fake-key-of-the-cost-test-0123456789");
        Self { harness, api, scripts }
    }

    /// Has the fake say this in these cases from now on, and in the others what a good model says.
    fn play(&self, own: Vec<Script>) {
        let write = |text: &str| {
            let file = self.harness.path(&format!("repositories/{ORDER}/remote/hello.txt"));
            Turn::Tool("Write", json!({"file_path": file, "content": text}))
        };
        let refused = r#"{"passed": false, "summary": "no", "issues": [{"severity": "blocker", "description": "b"}]}"#;
        let passed = r#"{"passed": true, "summary": "good", "issues": []}"#;
        let mut scripts = vec![
            (PLANNING, vec![Turn::Text("1. Write hello.txt.")]),
            (EXECUTE, vec![write("hello\n"), Turn::Text("I wrote hello.txt.")]),
            (FOLLOW_UP, vec![write("hello again\n"), Turn::Text("It says hello again.")]),
            (REVIEW, vec![Turn::Text(refused), Turn::Text(refused), Turn::Text(passed)]),
            (FIX, vec![bash("echo fixed"), Turn::Text("Fixed.")]),
            (
                "# Propose a commit message",
                vec![Turn::Text("feat: say hello\n\nPeople asked for it.")],
            ),
            ("# Propose a title", vec![Turn::Text("Say hello\n\nThis adds hello.txt.")]),
            (HELPER, vec![bash("echo looked"), Turn::Text("I looked around.")]),
        ];
        scripts.retain(|(words, _)| !own.iter().any(|(mine, _)| mine == words));
        scripts.extend(own);
        *self.scripts.lock().unwrap() = scripts;
    }

    /// The requests so far that were answered in full.
    fn served(&self) -> Vec<Served> {
        let served = self.api.served();
        served.into_iter().filter(|served| served.is_complete).collect()
    }

    /// Waits until the agent waits for an answer that does not come, behind so many tool calls of all its runs;
    /// answers how many requests were answered.
    async fn until_it_hangs(&self, step: &str, calls: usize) -> usize {
        let outputs = self.harness.path(&format!("work-orders/{ORDER}/outputs"));
        let has_called = || {
            let spools = fs::read_dir(&outputs).into_iter().flatten().filter_map(Result::ok);
            let of_step = spools.filter(|file| file.file_name().to_string_lossy().contains(step));
            let texts = of_step.map(|file| fs::read_to_string(file.path()).unwrap_or_default());
            texts.map(|text| text.matches("\"tool_result\"").count()).sum::<usize>() >= calls
        };
        let hangs = || self.api.served().last().is_some_and(|last| !last.is_complete);
        until("the agent waits for an answer", || has_called() && hangs()).await;
        self.served().len()
    }

    /// What the order says.
    async fn told(&self) -> Usage {
        let Json(usage): Json<Usage> =
            sqlx::query_scalar("select usage_by_model from agent_work_orders")
                .fetch_one(&self.harness.pool)
                .await
                .unwrap();
        usage
    }

    /// The order says what was served, token by token, and what it cost. Of `unreported`, which was interrupted,
    /// the price is an estimate where the agent did not come to its report, and marked as one.
    async fn assert_bill(&self, unreported: Range<usize>) {
        self.assert_bill_but(unreported, |figures| figures).await;
    }

    /// The same, looked at in another way.
    async fn assert_bill_but(&self, unreported: Range<usize>, look: fn(Figures) -> Figures) {
        self.harness.assert_sound().await;
        let served = self.served();
        let (bill, told) = (bill(&served), self.told().await);
        let told_tokens: BTreeMap<_, _> = told
            .models()
            .map(|(model, usage)| {
                (
                    model.to_owned(),
                    Figures::from([
                        usage.input_tokens,
                        usage.output_tokens,
                        usage.cache_read_tokens,
                        usage.cache_creation_5m_tokens,
                        usage.cache_creation_1h_tokens,
                    ]),
                )
            })
            .collect();
        let looked = |all: BTreeMap<String, Figures>| -> BTreeMap<String, Figures> {
            all.into_iter().map(|(model, figures)| (model, look(figures))).collect()
        };
        assert_eq!(looked(told_tokens), looked(bill), "{served:#?}");
        let cost = |requests: &[Served]| requests.iter().map(price).sum::<f64>();
        let (whole, unreported) = (cost(&served), cost(&served[unreported]));
        let (total, estimated) = (told.total().cost_usd, told.total().estimated_usd);
        // What is learnt from reports is as exact as those: a CLI rounds each.
        let margin = 2e-5 + 0.05 * estimated;
        assert!(
            (total - whole).abs() < margin,
            "{total}, of it {estimated} estimated, is not {whole}"
        );
        assert!(estimated < unreported + margin, "{estimated} of {unreported} is estimated");

        let (code, shown) = self.harness.command(&["show", ORDER, "--json"]);
        assert_eq!(code, Some(0), "{shown}");
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let total = told.total();
        assert_eq!(shown["total_input_tokens"], total.input_tokens);
        assert_eq!(shown["total_cache_creation_tokens"], total.cache_creation_tokens());
        let (_, words) = self.harness.command(&["show", ORDER]);
        let line = format!("{} tokens in, {} out", total.input_tokens, total.output_tokens);
        assert!(words.contains(&line), "{line} is not in {words}");
    }
}

/// Input, output, read from the cache, written to it for five minutes and for an hour.
type Figures = [u64; 5];

fn figures(served: &Served) -> Figures {
    let usage = served.usage;
    [usage.input, usage.output, usage.cache_read, usage.cache_write_5m, usage.cache_write_1h]
}

/// What was served, by model.
fn bill(served: &[Served]) -> BTreeMap<String, Figures> {
    let mut bill = BTreeMap::<String, Figures>::new();
    for served in served {
        let sums = bill.entry(served.model.clone()).or_default();
        sums.iter_mut().zip(figures(served)).for_each(|(sum, tokens)| *sum += tokens);
    }
    bill
}

fn price(served: &Served) -> f64 {
    let known = PRICES.iter().find(|(model, _)| *model == served.model);
    let (_, prices) = known.unwrap_or_else(|| panic!("no price of {}", served.model));
    let tokens = figures(served).map(|tokens| f64::from(u32::try_from(tokens).unwrap()));
    tokens.iter().zip(prices).map(|(tokens, price)| tokens * price / 1e6).sum()
}

fn bash(command: &str) -> Turn {
    Turn::Tool("Bash", json!({"command": command, "description": "runs"}))
}

/// Says what the scripts say, and bills each request otherwise.
fn director(scripts: Arc<Mutex<Vec<Script>>>) -> Director {
    let mut number = 0;
    Box::new(move |request| {
        number += 1;
        let usage = messages_api::Usage {
            input: 100 + number,
            output: 20 + 3 * number,
            cache_read: 1000 + 7 * number,
            cache_write_5m: 300 + 11 * number,
            cache_write_1h: 200 + 13 * number,
        };
        match choose(&scripts.lock().unwrap(), request) {
            Turn::Text(text) => Turn::Reply(Reply::text(text).spending(usage)),
            Turn::Tool(name, input) => Turn::Reply(Reply::tool(name, input).spending(usage)),
            other => other,
        }
    })
}

/// The turn of the script whose words a user said last: one for each result of a tool since then. A review is
/// asked for again and again in one conversation, and has a turn for each time.
fn choose(scripts: &[Script], request: &Value) -> Turn {
    let messages = request["messages"].as_array().unwrap();
    let said = |message: &Value, words: &str| {
        let texts: Vec<&str> = match &message["content"] {
            Value::String(text) => vec![text],
            Value::Array(blocks) => {
                blocks.iter().filter_map(|block| block["text"].as_str()).collect()
            }
            _ => Vec::new(),
        };
        message["role"] == "user" && texts.iter().any(|text| text.contains(words))
    };
    let last = |words: &str| messages.iter().rposition(|message| said(message, words));
    let (words, turns) = scripts.iter().max_by_key(|(words, _)| last(words)).unwrap();
    let at = if *words == REVIEW {
        messages.iter().filter(|message| said(message, words)).count() - 1
    } else {
        let after = last(words).map_or(0, |at| at + 1);
        let blocks = messages[after..].iter().filter_map(|message| message["content"].as_array());
        blocks.flatten().filter(|block| block["type"] == "tool_result").count()
    };
    turns[at.min(turns.len() - 1)].clone()
}

/// Two rounds of fixes; before that a failure and a requeue, after it a follow-up: five runs of three conversations.
async fn reviews_a_requeue_and_a_follow_up(pool: PgPool, version: &str) {
    let mut place = Place::new(pool, version).await;
    place.play(vec![(EXECUTE, vec![bash("echo a"), Turn::Refuse(400, "invalid_request_error")])]);
    place.harness.start_worker();
    place.harness.order_named(ORDER, "Say hello", ALL).await;
    place.harness.until_status(ORDER, "failed").await;
    place.assert_bill(0..0).await;

    place.play(Vec::new());
    let (code, said) = place.harness.command(&["requeue", ORDER, "--from-step", "planning"]);
    assert_eq!(code, Some(0), "{said}");
    place.harness.until_status(ORDER, "completed").await;
    place.assert_bill(0..0).await;

    let (code, said) = place.harness.command(&["prompt", ORDER, "Say it again"]);
    assert_eq!(code, Some(0), "{said}");
    place.harness.until_status(ORDER, "completed").await;
    let asked = format!("{:?}", place.api.requests());
    assert!(asked.contains(FIX) && asked.contains("Say it again"), "the rounds were played");
    place.assert_bill(0..0).await;

    let total = place.told().await.total();
    let metrics = metrics(&place.harness, "worker-0.log").await;
    let counted = counters(&metrics, "awo_tokens_total");
    for (kind, tokens) in [
        ("input", total.input_tokens),
        ("output", total.output_tokens),
        ("cache_read", total.cache_read_tokens),
        ("cache_creation_5m", total.cache_creation_5m_tokens),
        ("cache_creation_1h", total.cache_creation_1h_tokens),
    ] {
        let counted = counted.get(&format!("kind=\"{kind}\"")).copied();
        assert_eq!(counted, i64::try_from(tokens).ok(), "{kind} in {metrics}");
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn reviews_a_requeue_and_a_follow_up_of_the_newer_cli_are_on_the_bill(pool: PgPool) {
    reviews_a_requeue_and_a_follow_up(pool, NEWER).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn reviews_a_requeue_and_a_follow_up_of_the_older_cli_are_on_the_bill(pool: PgPool) {
    reviews_a_requeue_and_a_follow_up(pool, OLDER).await;
}

/// A subagent with a model of its own, and later the conversation goes on without one.
async fn a_subagent(pool: PgPool, version: &str) -> Place {
    let mut place = Place::new(pool, version).await;
    let helper = json!({"description": "looks", "prompt": HELPER, "subagent_type": "general-purpose",
        "model": "haiku"});
    let tool = if version == NEWER { "Agent" } else { "Task" };
    place.play(vec![(EXECUTE, vec![Turn::Tool(tool, helper), Turn::Text("It looked around.")])]);
    place.harness.start_worker();
    place.harness.order_named(ORDER, "Say hello", SHORT).await;
    place.harness.until_status(ORDER, "completed").await;
    place.play(Vec::new());
    let (code, said) = place.harness.command(&["prompt", ORDER, "Say it again"]);
    assert_eq!(code, Some(0), "{said}");
    place.harness.until_status(ORDER, "completed").await;
    assert_eq!(bill(&place.served()).len(), 2, "{:?}", place.served());
    place
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_subagent_of_the_newer_cli_is_on_the_bill_of_its_model(pool: PgPool) {
    a_subagent(pool, NEWER).await.assert_bill(0..0).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_subagent_of_the_older_cli_is_on_the_bill_of_its_model(pool: PgPool) {
    // It neither prints the last message of a subagent nor tells the two kinds of writes apart in its report.
    let place = a_subagent(pool, OLDER).await;
    place
        .assert_bill_but(0..0, |[input, output, read, minutes, hour]| {
            [input, output, read, minutes + hour, 0]
        })
        .await;
}

/// An agent that is interrupted in the middle of a conversation which goes on later. The newer CLI reports then
/// what the interrupted run cost, the older one never does.
async fn a_drain(pool: PgPool, version: &str) {
    let mut place = Place::new(pool, version).await;
    place.play(vec![(EXECUTE, vec![bash("echo a"), bash("echo b"), Turn::Hang])]);
    let worker = place.harness.start_worker();
    place.harness.order_named(ORDER, "Say hello", SHORT).await;
    let until = place.until_it_hangs("execute", 2).await;
    place.harness.signal(worker, Signal::SIGTERM);
    assert_eq!(place.harness.ended(worker).await, Some(0));
    place.assert_bill(until - 2..until).await;

    place.play(Vec::new());
    place.harness.start_worker();
    place.harness.until_status(ORDER, "completed").await;
    place.assert_bill(until - 2..until).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_the_newer_cli_used_before_a_drain_is_on_the_bill(pool: PgPool) {
    a_drain(pool, NEWER).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_the_older_cli_used_before_a_drain_is_on_the_bill(pool: PgPool) {
    a_drain(pool, OLDER).await;
}

/// A worker that is killed twice with its agent at work, and the order goes on in the same conversation.
async fn a_kill(pool: PgPool, version: &str) {
    let mut place = Place::new(pool, version).await;
    place.play(vec![(EXECUTE, vec![bash("echo a"), bash("echo b"), Turn::Hang])]);
    place.harness.order_named(ORDER, "Say hello", SHORT).await;
    let mut until = 0;
    for calls in [2, 4] {
        let worker = place.harness.start_worker();
        until = place.until_it_hangs("execute", calls).await;
        place.harness.signal(worker, Signal::SIGKILL);
    }
    place.play(Vec::new());
    place.harness.start_worker();
    place.harness.until_status(ORDER, "completed").await;
    // Behind the plan everything was lost that was served until the second kill.
    place.assert_bill(1..until).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_the_newer_cli_used_before_its_worker_was_killed_is_on_the_bill_once(pool: PgPool) {
    a_kill(pool, NEWER).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_the_older_cli_used_before_its_worker_was_killed_is_on_the_bill_once(pool: PgPool) {
    a_kill(pool, OLDER).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_was_used_before_a_cancel_is_on_the_bill(pool: PgPool) {
    let mut place = Place::new(pool, NEWER).await;
    place.play(vec![(EXECUTE, vec![bash("echo a"), bash("echo b"), Turn::Hang])]);
    place.harness.start_worker();
    place.harness.order_named(ORDER, "Say hello", SHORT).await;
    let until = place.until_it_hangs("execute", 2).await;
    let (code, said) = place.harness.command(&["cancel", ORDER, "--wait"]);
    assert_eq!(code, Some(0), "{said}");
    place.harness.until_status(ORDER, "cancelled").await;
    place.assert_bill(until - 2..until).await;
}
