//! Outages of what an order needs, and what workers count of how orders end.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;
use serde_json::Value;
use sqlx::PgPool;

use crate::{
    harness::{Harness, until},
    telemetry::{address, get},
};

/// What a Claude says when its provider is overloaded.
const OVERLOADED: &str = r#"{"type":"result","subtype":"success","is_error":true,"result":"busy","api_error_status":529}
"#;

/// Attempt, waits and state of the only job.
async fn standing(pool: &PgPool) -> (i32, i32, String) {
    let read = sqlx::query_as("select attempt, waits, state::text from awo.jobs");
    read.fetch_one(pool).await.unwrap()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_order_outlives_an_outage_of_its_provider(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("stdout-execute", OVERLOADED);
    harness.start_worker_with(&[("AWO_RETRY_MAX", "300ms")]);
    let order = harness.order("Write a file").await;
    harness.until("select waits >= 5 from awo.jobs").await;
    std::fs::remove_file(harness.path("agent/stdout-execute")).unwrap();
    harness.until_status(&order, "completed").await;
    let (_, _, message, attempt) = harness.outcome(&order).await;
    assert_eq!((attempt, message), (1, None), "no attempt was spent");

    let events: Vec<Value> = sqlx::query_scalar(
        "select convert_from(data, 'UTF8')::jsonb from awo.log_chunks where stream = 'event' order by seq",
    )
    .fetch_all(&harness.pool)
    .await
    .unwrap();
    let named = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert!(named("attempt_failed") >= 5, "{events:#?}");
    assert_eq!((named("workflow_completed"), named("workflow_failed")), (1, 0), "{events:#?}");
    assert!(events.iter().all(|event| event["level"] != "error"), "{events:#?}");
    assert_eq!(events.last().unwrap()["event"], "workflow_completed");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_git_server_that_is_away_is_waited_for(pool: PgPool) {
    let mut harness = Harness::new(pool);
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    harness.set("AWO_ALLOWED_HOSTS", format!("127.0.0.1:{port}"));
    sqlx::query("select awo_enqueue($1, 'Write a file', '{create-branch}', agent_work_order_id => 'wo-away')")
        .bind(format!("https://127.0.0.1:{port}/acme/app"))
        .execute(&harness.pool)
        .await
        .unwrap();
    harness.start_worker_with(&[("AWO_RETRY_MAX", "300ms"), ("AWO_RETRY_FOR", "4s")]);
    harness.until("select waits >= 4 from awo.jobs").await;
    let (attempt, _, state) = standing(&harness.pool).await;
    assert!(attempt <= 1 && state != "failed", "{attempt} {state}");

    harness.until("select state = 'failed' from awo.jobs").await;
    let (_, class, message, _) = harness.outcome("wo-away").await;
    let message = message.unwrap();
    assert_eq!(class.as_deref(), Some("git"), "{message}");
    assert!(message.starts_with("git could not reach https://127.0.0.1:"), "{message}");
    assert!(message.contains(" and gave up (AWO_RETRY_FOR): requeue the order when"), "{message}");
    harness.assert_sound().await;
}

/// The counters of an instrument by their labels.
pub fn counters(metrics: &str, name: &str) -> BTreeMap<String, i64> {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    let pairs = lines.filter_map(|line| line.rsplit_once("} "));
    pairs.map(|(labels, value)| (labels.to_owned(), value.parse().unwrap())).collect()
}

pub async fn metrics(harness: &Harness, log: &str) -> String {
    let (code, text) = get(&address(harness, log).await, "/metrics").await;
    assert_eq!(code, 200, "{text}");
    text
}

/// What the database recorded of attempts, by the labels of the counter; an order that a crash ended counts
/// as failed.
async fn recorded(pool: &PgPool) -> BTreeMap<String, i64> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "select case when a.outcome = 'crashed' and a.epoch = j.lease_epoch and j.state = 'failed'
                then 'failed' else a.outcome end, coalesce(a.error_class, ''), count(*)
         from awo.attempts a join awo.jobs j on j.id = a.job_id where a.ended_at is not null group by 1, 2",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let line = |(outcome, class, n)| (format!("error_class=\"{class}\",outcome=\"{outcome}\""), n);
    rows.into_iter().map(line).collect()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn counters_say_what_the_database_made_of_each_attempt(pool: PgPool) {
    const STEPS: &str = "create-branch planning execute";
    let mut harness = Harness::new(pool);
    harness.tell_agent(
        "extra",
        r#"case "$AWO_WORK_ORDER_ID $AWO_STEP" in
        "tool execute") exit 3 ;;
        "disk execute") echo "write: No space left on device" >&2; exit 1 ;;
        "stop execute") while true; do sleep 0.05; done ;;
        "crash execute") while true; do sleep 0.05; done ;;
        esac
        "#,
    );
    let settings = [("AWO_MAX_CONCURRENT", "8")];
    sqlx::query("select awo_set_repository_limit($1, 8)")
        .bind(harness.remote_url())
        .execute(&harness.pool)
        .await
        .unwrap();
    let first = harness.start_worker_with(&settings);
    // Refused when it is loaded: no step runs.
    sqlx::query(
        "select awo_enqueue('https://example.org/acme/app', 'x', agent_work_order_id => 'refused')",
    )
    .execute(&harness.pool)
    .await
    .unwrap();
    for id in ["good", "tool", "disk", "stop"] {
        harness.order_named(id, "Write a file", STEPS).await;
    }
    let in_execute = |id: &str| harness.path(&format!("agent/prompt-{id}-execute-1")).exists();
    until("an agent that will be stopped", || in_execute("stop")).await;
    sqlx::query("select awo_cancel('stop')").execute(&harness.pool).await.unwrap();
    harness.until("select count(*) = 5 from awo.jobs where finished_at is not null").await;

    let expected = recorded(&harness.pool).await;
    assert_eq!(expected["error_class=\"disk\",outcome=\"failed\""], 1, "{expected:?}");
    assert_eq!(expected["error_class=\"disk\",outcome=\"retried\""], 2, "{expected:?}");
    let shown = metrics(&harness, "worker-0.log").await;
    assert_eq!(counters(&shown, "awo_jobs_finished_total"), expected, "{shown}");
    assert!(shown.contains("awo_cancels_total 1\n"), "{shown}");
    let steps = counters(&shown, "awo_step_duration_seconds_count");
    assert_eq!(steps["outcome=\"cancelled\",step=\"execute\""], 1, "{steps:?}");
    assert_eq!(steps["outcome=\"failed\",step=\"execute\""], 4, "{steps:?}");

    // A worker that stands still until others have taken over, and an order with no crash to spare.
    harness.order_named("crash", "Write a file", STEPS).await;
    sqlx::query("update awo.jobs set max_crashes = 1 where work_order_id = 'crash'")
        .execute(&harness.pool)
        .await
        .unwrap();
    until("an agent whose worker stops", || harness.path("agent/prompt-crash-execute-1").exists())
        .await;
    harness.signal(first, Signal::SIGSTOP);
    harness.start_worker_with(&settings);
    harness.until("select state = 'failed' from awo.jobs where work_order_id = 'crash'").await;
    let shown = metrics(&harness, "worker-1.log").await;
    let lost = counters(&shown, "awo_jobs_finished_total");
    assert_eq!(lost["error_class=\"lost_worker\",outcome=\"failed\""], 1, "{shown}");
    harness.signal(first, Signal::SIGCONT);
    let mut steps = BTreeMap::new();
    let start = std::time::Instant::now();
    while !steps.contains_key("outcome=\"interrupted\",step=\"execute\"") {
        assert!(start.elapsed().as_secs() < 60, "never counted: {steps:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let shown = metrics(&harness, "worker-0.log").await;
        steps = counters(&shown, "awo_step_duration_seconds_count");
    }
    told_once(&harness.pool).await;
    harness.assert_sound().await;
}

/// Each order's log tells its end once, as its row has it.
async fn told_once(pool: &PgPool) {
    let told: Vec<String> = sqlx::query_scalar(
        "select concat_ws(' ', o.agent_work_order_id, o.status, o.error_class, e.entry ->> 'event', e.entry ->> 'level')
         from agent_work_orders o left join (
             select agent_work_order_id, convert_from(data, 'UTF8')::jsonb as entry
             from awo.log_chunks where stream = 'event') e
         on e.agent_work_order_id = o.agent_work_order_id
            and e.entry ->> 'event' in ('workflow_completed', 'workflow_failed')
            and e.entry ->> 'error' is not distinct from o.error_message
         order by 1",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    insta::assert_debug_snapshot!(told, @r#"
    [
        "crash failed lost_worker workflow_failed error",
        "disk failed disk workflow_failed error",
        "good completed workflow_completed info",
        "refused failed invalid workflow_failed error",
        "stop cancelled cancelled workflow_failed warning",
        "tool failed tool_error workflow_failed error",
    ]
    "#);
}
