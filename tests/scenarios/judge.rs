//! Compares what came of a scenario with what it expects.

use std::fmt::Debug;

use sqlx::PgPool;

use crate::{
    director::{OTHER, all_texts},
    format::{Bill, Expect, Scenario},
    messages_api::{Served, Usage},
    play::{ORDER, Play},
    values::Patterns,
};

/// Dollars by which a sum may be off: the columns keep six digits, and steps are rounded one by one.
const ROUNDING: f64 = 0.000_02;

/// What the order's row says.
#[derive(Debug, sqlx::FromRow)]
struct Row {
    status: String,
    error_class: Option<String>,
    error_message: Option<String>,
    agent_session_id: Option<String>,
    total_input_tokens: i64,
    total_output_tokens: i64,
    total_cost_usd: f64,
    attempt: i32,
}

/// Sums over the steps of the order.
#[derive(Debug, sqlx::FromRow)]
struct Steps {
    input: i64,
    output: i64,
    cache_read: i64,
    cache_creation: i64,
    usd: f64,
}

/// Everything that differs, one line each.
#[derive(Debug, Default)]
struct Differences(Vec<String>);

impl Differences {
    fn same<T: PartialEq + Debug>(&mut self, what: &str, expected: &T, got: &T) {
        if expected != got {
            self.0.push(format!("{what}: expected {expected:?}, got {got:?}"));
        }
    }

    fn has(&mut self, what: &str, patterns: &Patterns, text: &str) {
        for pattern in patterns.missing(text) {
            self.0.push(format!("{what}: expected /{pattern}/, got {}", shown(text)));
        }
    }

    fn lacks(&mut self, what: &str, patterns: &Patterns, text: &str) {
        for pattern in patterns.found(text) {
            self.0.push(format!("{what}: expected nothing like /{pattern}/, got {}", shown(text)));
        }
    }
}

/// A text as a report can hold it.
fn shown(text: &str) -> String {
    const LONGEST: usize = 1500;
    let end = text.char_indices().nth(LONGEST).map_or(text.len(), |(at, _)| at);
    format!("{:?}{}", &text[..end], if end < text.len() { " …" } else { "" })
}

/// What differs from the expectations, one line each.
pub async fn differences(play: &Play, scenario: &Scenario, version: &str) -> Vec<String> {
    let (pool, expect) = (&play.harness.pool, &scenario.expect);
    let mut differences = Differences::default();
    for kind in scenario.turns.keys().filter(|kind| *kind != OTHER) {
        if !play.kinds.lock().unwrap().contains(kind) {
            differences.0.push(format!("turns: the model was never asked {kind:?}"));
        }
    }
    let row = row(pool).await;
    outcome(&mut differences, expect, &row);
    if let Some(ran) = &expect.ran {
        differences.same("ran", ran, &play.harness.steps(ORDER).await);
    }
    delivery(&mut differences, play, expect);
    texts(&mut differences, play, expect).await;
    conversation(&mut differences, play, expect);
    bill(&mut differences, play, (expect.bill, version), &row).await;
    if let Some(step) = &expect.session {
        let session: Option<String> = sqlx::query_scalar(
            "select session_id from agent_work_order_steps where step_name = $1 order by id desc limit 1",
        )
        .bind(step)
        .fetch_optional(pool)
        .await
        .unwrap()
        .flatten();
        differences.same("agent_session_id", &session, &row.agent_session_id);
    }
    let broken: Vec<String> =
        sqlx::query_scalar("select broken || ' ' || subject from awo.invariants")
            .fetch_all(pool)
            .await
            .unwrap();
    differences.same("invariants", &Vec::new(), &broken);
    differences.same("processes left behind", &Vec::new(), &play.left_behind().await);
    differences.0
}

async fn row(pool: &PgPool) -> Row {
    sqlx::query_as(
        "select o.status, o.error_class, o.error_message, o.agent_session_id, o.total_input_tokens,
             o.total_output_tokens, o.total_cost_usd::float8 as total_cost_usd, j.attempt
         from agent_work_orders o join awo.jobs j on j.id = o.awo_job_id",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

fn outcome(differences: &mut Differences, expect: &Expect, row: &Row) {
    let sentence = row.error_message.as_deref().unwrap_or_default();
    if row.status != expect.status {
        let class = row.error_class.as_deref().unwrap_or("none");
        differences.0.push(format!(
            "status: expected {:?}, got {:?} (class {class}: {})",
            expect.status,
            row.status,
            shown(sentence)
        ));
    }
    if let Some(class) = &expect.class {
        differences.same("class", class, &row.error_class.clone().unwrap_or("none".to_owned()));
    }
    differences.has("sentence", &expect.sentence, sentence);
    differences.lacks("sentence", &expect.sentence_not, sentence);
    if let Some(attempts) = expect.attempts {
        differences.same("attempts", &attempts, &row.attempt);
    }
}

fn delivery(differences: &mut Differences, play: &Play, expect: &Expect) {
    let harness = &play.harness;
    let (branches, pulls) = harness.deliveries();
    if let Some(delivered) = expect.delivered {
        let expected = usize::from(delivered);
        differences.same(
            "branches and pull requests",
            &(expected, expected),
            &(branches.len(), pulls.len()),
        );
    }
    let asks = !expect.files.is_empty() || !expect.commit.0.is_empty() || !expect.pull.0.is_empty();
    let Some(head) = pulls.first().or(branches.first()) else {
        if asks {
            differences.0.push("nothing was pushed".to_owned());
        }
        return;
    };
    let listed = harness.git(&["-C", "remote.git", "ls-tree", "-r", "-z", "--name-only", head]);
    let has = |path: &str| listed.split('\0').any(|name| name == path);
    for (path, expected) in &expect.files {
        let show = || harness.git(&["-C", "remote.git", "show", &format!("{head}:{path}")]);
        let got = has(path).then(show);
        differences.same(path, expected, &got);
    }
    let message = harness.git(&["-C", "remote.git", "log", "-1", "--format=%B", head]);
    differences.has("commit message", &expect.commit, &message);
    differences.lacks("commit message", &expect.commit_not, &message);
    let page =
        std::fs::read_to_string(harness.path("remote.git/awo/pulls/1.md")).unwrap_or_default();
    differences.has("pull request", &expect.pull, &page);
    differences.lacks("pull request", &expect.pull_not, &page);
}

async fn texts(differences: &mut Differences, play: &Play, expect: &Expect) {
    let pool = &play.harness.pool;
    let planned: Option<String> = sqlx::query_scalar(
        "select content from agent_work_order_artifacts where artifact_type = 'plan' order by id desc limit 1",
    )
    .fetch_optional(pool)
    .await
    .unwrap()
    .flatten();
    let planned = planned.as_deref().unwrap_or_default();
    differences.has("plan", &expect.plan, planned);
    differences.lacks("plan", &expect.plan_not, planned);
    let events: Vec<String> = sqlx::query_scalar(
        "select convert_from(data, 'UTF8') from awo.log_chunks where stream = 'event' order by seq",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let events = events.join("\n");
    differences.has("events", &expect.events, &events);
    differences.lacks("events", &expect.events_not, &events);
    if !expect.log.0.is_empty() || !expect.log_not.0.is_empty() {
        let (_, log) = play.harness.command(&["logs", ORDER]);
        differences.has("log", &expect.log, &log);
        differences.lacks("log", &expect.log_not, &log);
    }
}

/// What the model was asked.
fn conversation(differences: &mut Differences, play: &Play, expect: &Expect) {
    let kinds = play.kinds.lock().unwrap().clone();
    let requests = play.api.requests();
    let told = |wanted: &str| {
        let of_kind = kinds.iter().zip(&requests).filter(|(kind, _)| *kind == wanted);
        let texts = of_kind.flat_map(|(_, request)| all_texts(request));
        texts.collect::<Vec<_>>().join("\n")
    };
    for (kind, patterns) in &expect.told {
        differences.has(&format!("told in {kind}"), patterns, &told(kind));
    }
    for (kind, patterns) in &expect.told_not {
        // Such texts are long; the pattern says enough.
        let text = told(kind);
        for pattern in patterns.found(&text) {
            differences.0.push(format!("told in {kind}: expected nothing like /{pattern}/"));
        }
    }
    for (kind, expected) in &expect.requests {
        let got = kinds.iter().filter(|asked| kind == "all" || *asked == kind).count();
        differences.same(&format!("requests of {kind}"), expected, &got);
    }
}

/// Dollars for a million tokens of input and of output, in the price tables of the CLIs.
fn price(model: &str) -> (f64, f64) {
    match model {
        _ if model.contains("haiku-5-5") => (0.1, 0.5),
        _ if model.contains("haiku") => (1.0, 5.0),
        _ if model.contains("opus") => (5.0, 25.0),
        _ => (3.0, 15.0),
    }
}

/// What an answer costs by the price table of the CLI, whose figure the product takes: reading from the
/// cache a tenth of the input, writing to it a quarter more, or twice as much for an hour. 2.1.138 takes both
/// kinds of writes for the shorter one.
#[expect(clippy::cast_precision_loss, reason = "the tokens of a test are few")]
fn dollars(served: &Served, version: &str) -> f64 {
    let Usage { input, output, cache_read, cache_write_5m, cache_write_1h } = served.usage;
    let (of_input, of_output) = price(&served.model);
    let hour = if version == "2.1.138" { 1.25 } else { 2.0 };
    let read =
        cache_read as f64 * 0.1 + cache_write_5m as f64 * 1.25 + cache_write_1h as f64 * hour;
    ((input as f64 + read) * of_input + output as f64 * of_output) / 1e6
}

async fn bill(
    differences: &mut Differences,
    play: &Play,
    (bill, version): (Bill, &str),
    row: &Row,
) {
    if bill == Bill::Any {
        return;
    }
    let steps: Steps = sqlx::query_as(
        "select coalesce(sum(input_tokens), 0)::int8 as input, coalesce(sum(output_tokens), 0)::int8 as output,
             coalesce(sum(cache_read_tokens), 0)::int8 as cache_read,
             coalesce(sum(cache_creation_tokens), 0)::int8 as cache_creation,
             coalesce(sum(cost_usd), 0)::float8 as usd
         from agent_work_order_steps",
    )
    .fetch_one(&play.harness.pool)
    .await
    .unwrap();
    let served = play.api.served();
    let complete = served.iter().filter(|served| served.is_complete);
    let spent = play.api.spent();
    let usd: f64 = complete.map(|served| dollars(served, version)).sum();
    let tokens = |count: u64| i64::try_from(count).unwrap();
    let counts = [
        ("input tokens of the order", tokens(spent.input), row.total_input_tokens),
        ("output tokens of the order", tokens(spent.output), row.total_output_tokens),
        ("input tokens of the steps", tokens(spent.input), steps.input),
        ("output tokens of the steps", tokens(spent.output), steps.output),
        ("tokens read from the cache", tokens(spent.cache_read), steps.cache_read),
        ("tokens written to the cache", tokens(spent.cache_writes()), steps.cache_creation),
    ];
    for (what, served, got) in counts {
        if got != served && (bill == Bill::Served || got < served) {
            differences.0.push(format!("{what}: {served} were served, got {got}"));
        }
    }
    for (what, got) in
        [("dollars of the order", row.total_cost_usd), ("dollars of the steps", steps.usd)]
    {
        let off = got - usd;
        if off < -ROUNDING || (bill == Bill::Served && off > ROUNDING) {
            differences.0.push(format!("{what}: {usd:.6} were served, got {got:.6}"));
        }
    }
}
