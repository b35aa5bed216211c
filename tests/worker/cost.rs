//! What agents consumed is counted once, whoever counts it and however often it is said. The agent is scripted;
//! `cost_claude.rs` has the real one.

use std::time::Duration;

use archon_awo::{
    clock::Clock,
    domain::{EarlierRun, ModelUsage, StepName, Usage, WorkOrderId},
    store::{Claimed, CountedRun, NewAgentRun, RunStore, Settlement, StepEnd, Store},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::Harness;

fn spent(input_tokens: u64, cost_usd: f64) -> Usage {
    let mut usage = Usage::default();
    usage.add("claude-a", ModelUsage { input_tokens, cost_usd, ..ModelUsage::default() });
    usage
}

async fn claim(store: &Store) -> (RunStore, Claimed) {
    let (queues, lease) = (["default".to_owned()], Duration::from_secs(30));
    let claim = store.claim(Uuid::new_v4(), &queues, 1, lease, Duration::ZERO).await.unwrap();
    let job = claim.into_jobs().remove(0);
    let clock = Clock::with_random(0.5);
    (RunStore::new(store.clone(), job.fence(), CancellationToken::new(), clock), job)
}

/// An order, and its first owner at work on `execute`.
async fn begun(pool: &PgPool) -> (Store, WorkOrderId, RunStore, Claimed) {
    let store = Store::new(pool.clone());
    let order: String = sqlx::query_scalar("select awo_enqueue('https://github.com/a/b', 'Work')")
        .fetch_one(pool)
        .await
        .unwrap();
    let (run, job) = claim(&store).await;
    let order: WorkOrderId = order.parse().unwrap();
    run.start_step(&order, StepName::Execute, 1, "claude", Uuid::nil()).await.unwrap();
    (store, order, run, job)
}

fn new_run(number: u128) -> NewAgentRun {
    NewAgentRun {
        run_id: Uuid::from_u128(number),
        step: StepName::Execute,
        attempt: 1,
        session: Uuid::nil(),
        spool: format!("1-execute-1-{number}.ndjson"),
    }
}

fn counted(number: u128, consumed: Usage, reported: Option<Usage>) -> CountedRun {
    let unreported = if reported.is_none() { consumed.clone() } else { Usage::default() };
    let left_behind = EarlierRun { reported, unreported };
    CountedRun { run_id: Uuid::from_u128(number), session: Uuid::nil(), consumed, left_behind }
}

fn end(success: bool) -> StepEnd {
    StepEnd {
        agent_name: "claude",
        success,
        output: Value::Null,
        text: None,
        error_class: None,
        error_message: None,
        session: None,
        isolation: None,
    }
}

/// Input tokens and US dollars of the order, and of each of its steps.
async fn said(pool: &PgPool) -> ((i64, f64), Vec<(i32, i64, f64)>) {
    let order = "select total_input_tokens, total_cost_usd::float8 from agent_work_orders";
    let steps =
        "select attempt, input_tokens, cost_usd::float8 from agent_work_order_steps order by id";
    (
        sqlx::query_as(order).fetch_one(pool).await.unwrap(),
        sqlx::query_as(steps).fetch_all(pool).await.unwrap(),
    )
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_run_that_is_said_twice_is_counted_once(pool: PgPool) {
    let (_, order, run, _) = begun(&pool).await;
    for _ in 0..2 {
        assert_eq!(run.begin_agent_run(&new_run(1)).await.unwrap(), []);
    }
    let first = counted(1, spent(7, 0.5), Some(spent(7, 0.5)));
    assert!(run.count_agent_run(&first).await.unwrap());
    assert!(!run.count_agent_run(&first).await.unwrap());
    // The second run of the conversation hears of the first one, whenever it asks.
    let left = EarlierRun { reported: Some(spent(7, 0.5)), unreported: Usage::default() };
    for _ in 0..2 {
        assert_eq!(run.begin_agent_run(&new_run(2)).await.unwrap(), std::slice::from_ref(&left));
    }
    run.count_agent_run(&counted(2, spent(100, 1.0), None)).await.unwrap();
    for _ in 0..2 {
        run.end_step(&order, StepName::Execute, 1, &end(true)).await.unwrap();
    }
    assert_eq!(said(&pool).await, ((107, 1.5), vec![(1, 107, 1.5)]));
    let by_model: Value = sqlx::query_scalar("select usage_by_model from agent_work_order_steps")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(by_model["claude-a"]["input_tokens"], 107);
    assert_eq!(run.begin_agent_run(&new_run(3)).await.unwrap().len(), 2);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_a_former_owner_did_not_count_is_counted_by_the_next_one_alone(pool: PgPool) {
    let (store, order, former, job) = begun(&pool).await;
    for number in [1, 2] {
        former.begin_agent_run(&new_run(number)).await.unwrap();
    }
    former.count_agent_run(&counted(1, spent(7, 0.5), Some(spent(7, 0.5)))).await.unwrap();
    let back = Settlement::Interrupted("lost".to_owned());
    store.settle(&[(job.fence(), &back)]).await.unwrap();

    let (run, job) = claim(&store).await;
    let lost = run.next_lost_run(0).await.unwrap().unwrap();
    assert_eq!((lost.run_id, lost.earlier.0.len()), (Uuid::from_u128(2), 1));
    // It could not: the output is on another volume. The step becomes history with what is known.
    run.start_step(&order, StepName::Execute, 1, "claude", Uuid::nil()).await.unwrap();
    assert_eq!(said(&pool).await, ((7, 0.5), vec![(1, 7, 0.5)]));
    store.settle(&[(job.fence(), &back)]).await.unwrap();

    let (run, _) = claim(&store).await;
    assert!(run.count_agent_run(&counted(2, spent(30, 0.0), None)).await.unwrap());
    assert!(!run.count_agent_run(&counted(2, spent(30, 0.0), None)).await.unwrap());
    assert!(run.next_lost_run(0).await.unwrap().is_none());
    assert_eq!(said(&pool).await, ((37, 0.5), vec![(1, 37, 0.5)]));
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn prices_are_learnt_from_what_agents_reported_and_from_no_estimate(pool: PgPool) {
    let (_, _, run, _) = begun(&pool).await;
    let count = async |number, usage: Usage, reported: bool| {
        run.begin_agent_run(&new_run(number)).await.unwrap();
        let reported = reported.then(|| usage.clone());
        run.count_agent_run(&counted(number, usage, reported)).await.unwrap();
    };
    let price = async || {
        let prices = run.prices(&["claude-a".to_owned()]).await.unwrap();
        prices.estimate("claude-a", &ModelUsage { input_tokens: 100, ..ModelUsage::default() })
    };
    assert_eq!(price().await, None);
    count(1, spent(1000, 0.0), true).await;
    count(2, spent(1000, 9.0), false).await;
    let mut estimated = Usage::default();
    let usd = (7.0, 7.0);
    let usage = ModelUsage { cost_usd: usd.0, estimated_usd: usd.1, ..[1000, 0, 0, 0, 0].into() };
    estimated.add("claude-a", usage);
    count(3, estimated, true).await;
    assert_eq!(price().await, None, "none of these was reported with a price");
    count(4, spent(1000, 0.5), true).await;
    assert!((price().await.unwrap() - 0.05).abs() < 1e-9);
    // Only the latest ones count.
    for number in 5..30 {
        count(number, spent(1000, 0.25), true).await;
    }
    assert!((price().await.unwrap() - 0.025).abs() < 1e-9);
    let estimated: Vec<f64> = sqlx::query_scalar("select estimated_usd::float8 from awo.costs")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(estimated, [7.0]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn costs_are_known_by_week_repository_step_and_model(pool: PgPool) {
    let (_, _, run, _) = begun(&pool).await;
    for (number, model) in [(1, "claude-a"), (2, "claude-a"), (3, "claude-b")] {
        run.begin_agent_run(&new_run(number)).await.unwrap();
        let mut usage = Usage::default();
        let spent = [10, 20, 30, 40, 50].into();
        usage.add(model, ModelUsage { cost_usd: 0.125, ..spent });
        run.count_agent_run(&counted(number, usage, None)).await.unwrap();
    }
    let costs: Vec<(String, String, String, i64, i64, i64, f64)> = sqlx::query_as(
        "select repo_key, step_name, model, runs, cache_creation_5m_tokens, cache_creation_1h_tokens, cost_usd::float8
         from awo.costs where week = date_trunc('week', now() at time zone 'UTC') order by model",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let line = |model: &str, runs: i64, cost| {
        let names = ("github.com/a/b".to_owned(), "execute".to_owned(), model.to_owned());
        (names.0, names.1, names.2, runs, 40 * runs, 50 * runs, cost)
    };
    assert_eq!(costs, [line("claude-a", 2, 0.25), line("claude-b", 1, 0.125)]);
}

/// What an agent says that is then killed: a message with all its tokens, one that has only begun.
fn lines() -> String {
    let usage = |n: u64, output: u64| {
        json!({"input_tokens": n, "output_tokens": output, "cache_read_input_tokens": 2 * n,
            "cache_creation_input_tokens": 7 * n,
            "cache_creation": {"ephemeral_5m_input_tokens": 3 * n, "ephemeral_1h_input_tokens": 4 * n}})
    };
    let message = |n: u64| {
        json!({"type": "assistant", "message": {"id": format!("msg_{n}"), "model": "claude-a", "content": [],
            "usage": usage(n, 1)}})
    };
    let event = json!({"type": "message_delta", "usage": usage(1000, 600)});
    let delta = json!({"type": "stream_event", "event": event});
    let init = json!({"type": "system", "subtype": "init"});
    [init, message(1000), delta, message(10)].map(|line| format!("{line}\n")).concat()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_an_agent_said_before_its_worker_was_killed_is_counted_once(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("lines", &lines());
    harness.tell_agent("busy", "");
    harness.tell_agent(
        "extra",
        r#"[ "$AWO_STEP" = execute ] && [ -e "$folder/busy" ] && {
            cat "$folder/lines"; touch "$folder/said-$AWO_ATTEMPT"
            while [ -e "$folder/busy" ]; do sleep 0.05; done; }
        "#,
    );
    let order = harness.order("Write a file").await;
    for attempt in 1..=2 {
        let worker = harness.start_worker();
        let mark = harness.path(&format!("agent/said-{attempt}"));
        let spool =
            harness.path(&format!("work-orders/{order}/outputs/3-execute-{attempt}.ndjson"));
        let is_spooled =
            || std::fs::read_to_string(&spool).is_ok_and(|text| text.contains("msg_10"));
        crate::harness::until("the lines in the spool", || mark.exists() && is_spooled()).await;
        harness.signal(worker, Signal::SIGKILL);
    }
    std::fs::remove_file(harness.path("agent/busy")).unwrap();
    harness.start_worker();
    harness.until_status(&order, "completed").await;
    harness.assert_sound().await;

    let once = [1010, 601, 2020, 7070, 4040];
    let order: Value = sqlx::query_scalar(
        "select jsonb_build_array(total_input_tokens, total_output_tokens, total_cache_read_tokens,
             total_cache_creation_tokens, total_cache_creation_1h_tokens) from agent_work_orders",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert_eq!(order, json!(once.map(|tokens| 2 * tokens)));
    let steps: Vec<(i32, bool, i64)> = sqlx::query_as(
        "select attempt, success, input_tokens from agent_work_order_steps where step_name = 'execute' order by id",
    )
    .fetch_all(&harness.pool)
    .await
    .unwrap();
    assert_eq!(steps, [(1, false, 1010), (2, false, 1010), (3, true, 0)]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_last_run_of_an_order_that_ends_with_its_worker_is_counted(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("lines", &lines().replace("claude-a", "claude-sonnet-4-5"));
    harness.tell_agent(
        "extra",
        r#"[ "$AWO_STEP" = execute ] && { cat "$folder/lines"; while :; do sleep 0.05; done; }
        "#,
    );
    let order = harness.order("Write a file").await;
    sqlx::query("update awo.jobs set max_crashes = 1").execute(&harness.pool).await.unwrap();
    let worker = harness.start_worker();
    let spool = harness.path(&format!("work-orders/{order}/outputs/3-execute-1.ndjson"));
    let is_spooled = || std::fs::read_to_string(&spool).is_ok_and(|text| text.contains("msg_10"));
    crate::harness::until("the lines in the spool", is_spooled).await;
    harness.signal(worker, Signal::SIGKILL);
    harness.start_worker();
    harness.until_status(&order, "failed").await;
    harness.until("select total_input_tokens = 1010 from agent_work_orders").await;
    harness.assert_sound().await;
    let (usd, estimated): (f64, f64) = sqlx::query_as(
        "select total_cost_usd::float8,
             (usage_by_model -> 'claude-sonnet-4-5' ->> 'estimated_usd')::float8 from agent_work_orders",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    // By the list: 3, 15, 0.3, 3.75 and 6 dollars for a million.
    assert!(
        (usd - 0.048_253_5).abs() < 1e-6 && (estimated - usd).abs() < 1e-6,
        "{usd} {estimated}"
    );
    let (_, shown) = harness.command(&["show", &order]);
    assert!(shown.contains("$0.0483, $0.0483 of it by estimate"), "{shown}");
}
