//! What an order costs in requests to the model, counted where they arrive.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgPool;

use crate::{
    claude::{ALL, COMMIT, EXECUTE, ORDER, PULL_REQUEST, Place},
    messages_api::Turn,
};

/// An answer with the words for the delivery, as our command file asks for them.
const WROTE: &str = "I wrote hello.txt.\n\n<commit-message>\nfeat: say hello\n\nPeople asked for it.\n\
    </commit-message>\n<pull-request>\nSay hello\n\nThis adds hello.txt.\n</pull-request>\n";

/// The input of requests in tokens, four bytes each, as a provider counts it that keeps what stands before a
/// mark of the CLI for the requests after it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Input {
    requests: usize,
    conversations: usize,
    /// All of it.
    total: usize,
    /// What had been sent before.
    cached: usize,
}

fn input(requests: &[Value]) -> Input {
    let mut known: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut conversations = BTreeSet::new();
    let mut sum = Input { requests: requests.len(), ..Input::default() };
    for request in requests {
        conversations.insert(request["metadata"]["user_id"].to_string());
        let (mut bytes, mut cached, mut digest, mut marks) = (0, 0, Sha256::new(), Vec::new());
        for mut block in blocks(request) {
            let is_marked = block.as_object_mut().unwrap().remove("cache_control").is_some();
            let text = block.to_string();
            bytes += text.len();
            digest.update(text.as_bytes());
            let prefix = digest.clone().finalize().to_vec();
            if known.contains(&prefix) {
                cached = bytes;
            }
            if is_marked {
                marks.push(prefix);
            }
        }
        known.extend(marks);
        sum.total += bytes / 4;
        sum.cached += cached / 4;
    }
    sum.conversations = conversations.len();
    sum
}

/// The blocks in the order in which a provider reads them: tools, system, messages.
fn blocks(request: &Value) -> Vec<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut blocks = list(&request["tools"]);
    // The first one of the system prompt is for the vendor's bills: the version of the CLI and a digest of the prompt.
    // What the vendor's cache makes of it is not known, so it is not counted.
    let of_system = list(&request["system"]).into_iter();
    blocks.extend(of_system.filter(|block| {
        let text = block["text"].as_str().unwrap_or_default();
        !text.starts_with("x-anthropic-billing-header")
    }));
    for message in list(&request["messages"]) {
        match &message["content"] {
            Value::String(text) => {
                blocks.push(json!({"role": message["role"], "type": "text", "text": text}));
            }
            content => blocks.extend(list(content)),
        }
    }
    blocks
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_small_order_takes_four_requests_in_three_conversations(pool: PgPool) {
    let mut place = Place::new(pool).await;
    let mut scripts = place.healthy();
    for (words, turns) in &mut scripts {
        if *words == EXECUTE {
            *turns.last_mut().unwrap() = Turn::Text(WROTE);
        }
    }
    place.api.play(scripts);
    place.harness.start_worker();
    place.harness.order_named(ORDER, "Say hello", ALL).await;
    place.harness.until_status(ORDER, "completed").await;

    let requests = place.api.requests();
    let first = input(&requests);
    eprintln!("a small order: {first:?}");
    assert_eq!((first.requests, first.conversations), (4, 3), "{first:?}");
    let asked = format!("{requests:?}");
    assert!(!asked.contains(COMMIT) && !asked.contains(PULL_REQUEST), "asked for words");
    assert_eq!(place.delivered(), "hello from the whole order\n");
    let branch = format!("refs/heads/feat/say-hello-{ORDER}");
    let message = place.harness.git(&["-C", "remote.git", "log", "-1", "--format=%B", &branch]);
    assert!(message.starts_with("feat: say hello\n\nPeople asked for it."), "{message}");
    let page = std::fs::read_to_string(place.harness.path("remote.git/awo/pulls/1.md")).unwrap();
    assert!(page.contains("Say hello") && page.contains("This adds hello.txt."), "{page}");
    let output: String =
        sqlx::query_scalar("select output from agent_work_order_steps where step_name = 'execute'")
            .fetch_one(&place.harness.pool)
            .await
            .unwrap();
    assert_eq!(output, "I wrote hello.txt.");

    let other = "wo-0a0a0a0a";
    place.harness.order_named(other, "Say hello", "create-branch planning").await;
    place.harness.until_status(other, "completed").await;
    let requests = place.api.requests();
    let both = input(&requests);
    let (cached, total) = (both.cached - first.cached, both.total - first.total);
    eprintln!("the plan of the next order: {cached} of {total} were sent before");
    // Tools and system prompt are those of the first order, byte for byte.
    let mut constant = requests.last().unwrap().clone();
    constant["messages"] = json!([]);
    assert_eq!((both.requests, cached), (5, input(&[constant]).total));
    place.harness.assert_sound().await;
}
