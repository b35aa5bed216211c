//! A former owner changes nothing: every write of a run, sent under an epoch that is no longer the
//! current one while another owner holds the lease.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{future::Future, time::Duration};

use archon_awo::{
    clock::Clock,
    domain::{EarlierRun, ModelUsage, StepName, Usage, WorkOrderId},
    store::{
        Claimed, CountedRun, Effect, NewAgentRun, NewArtifact, NewLogChunk, OrderFacts, RunError,
        RunStore, SavedForm, SavedWork, Settlement, Stages, StepEnd, Store,
    },
};
use serde_json::json;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The statements of a run that only read.
const READS: [&str; 7] = [
    "load_order",
    "finished_steps",
    "find_intent",
    "former_owner",
    "next_lost_run",
    "rebuild_source",
    "reported_prices",
];

/// Everything a run may write, as text.
async fn everything(pool: &PgPool) -> String {
    sqlx::query_scalar(
        "SELECT concat_ws(E'\\n',
            (SELECT jsonb_agg(to_jsonb(t) ORDER BY t.step_name) FROM awo.steps t),
            (SELECT jsonb_agg(to_jsonb(t) ORDER BY t.kind, t.key) FROM awo.side_effects t),
            (SELECT jsonb_agg(to_jsonb(t) ORDER BY t.seq) FROM awo.log_chunks t),
            (SELECT jsonb_agg(to_jsonb(t)) FROM awo.log_heads t),
            (SELECT jsonb_agg(to_jsonb(t) ORDER BY t.epoch) FROM awo.attempts t),
            (SELECT jsonb_agg(to_jsonb(t)) FROM agent_work_orders t),
            (SELECT jsonb_agg(to_jsonb(t) ORDER BY t.id) FROM agent_work_order_steps t),
            (SELECT jsonb_agg(to_jsonb(t) ORDER BY t.id) FROM agent_work_order_artifacts t),
            (SELECT jsonb_agg(to_jsonb(t) ORDER BY t.id) FROM awo.agent_runs t),
            (SELECT jsonb_agg(to_jsonb(t)) FROM awo.jobs t),
            (SELECT jsonb_agg(to_jsonb(t)) FROM awo.leases t))",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

async fn claim(store: &Store) -> Claimed {
    let queues = ["default".to_owned()];
    let (lease, aging) = (Duration::from_secs(30), Duration::ZERO);
    let claim = store.claim(Uuid::new_v4(), &queues, 1, lease, aging).await.unwrap();
    claim.into_jobs().remove(0)
}

fn run_of(store: &Store, job: &Claimed) -> RunStore {
    let clock = Clock::with_random(0.5);
    RunStore::new(store.clone(), job.fence(), CancellationToken::new(), clock)
}

fn end(success: bool) -> StepEnd {
    StepEnd {
        agent_name: "command",
        success,
        output: json!({"by": "whoever"}),
        text: Some("done".to_owned()),
        error_class: None,
        error_message: None,
        session: Some(Uuid::new_v4()),
        isolation: None,
    }
}

/// Every write of a run by its name; each changes something when its owner is the current one.
async fn write(name: &str, run: &RunStore, order: &WorkOrderId) -> Result<(), RunError> {
    let step = StepName::Execute;
    match name {
        "start_step" => {
            run.start_step(order, StepName::Planning, 2, "command", Uuid::new_v4()).await.map(drop)
        }
        "end_step" => run.end_step(order, step, 3, &end(true)).await.map(drop),
        "forget_steps" => run.forget_steps(&[StepName::CreateBranch]).await,
        "begin_anew" => run.begin_anew(&[]).await.map(drop),
        "update_order" => {
            let facts = OrderFacts { branch: Some("feat/x".to_owned()), ..OrderFacts::default() };
            run.update_order(order, &facts).await
        }
        "intend" => run.intend(Effect::PullRequest, "feat/x", &json!({})).await,
        "complete_effect" => run.complete_effect(Effect::Push, "feat/x", &json!({})).await,
        "add_artifact" => {
            let artifact = NewArtifact {
                kind: "plan",
                step,
                content: Some("text".to_owned()),
                path: None,
                sha256: "0".repeat(64),
                size_bytes: 4,
            };
            run.add_artifact(order, &artifact).await
        }
        "add_saved" => {
            let saved = SavedWork {
                path: "wo-1/bundles/a.bundle".to_owned(),
                sha256: "0".repeat(64),
                size_bytes: 4,
            };
            run.add_saved(SavedForm::Bundle, &saved).await
        }
        "note_stages" => run.note_stages(Stages { tree_empty: true, ..Stages::default() }).await,
        "begin_agent_run" => {
            let (run_id, session) = (Uuid::from_u128(7), Uuid::nil());
            let spool = "3-execute-1.ndjson".to_owned();
            let begun = NewAgentRun { run_id, step, attempt: 1, session, spool };
            run.begin_agent_run(&begun).await.map(drop)
        }
        "count_agent_run" => {
            let mut consumed = Usage::default();
            consumed.add("model", ModelUsage { input_tokens: 7, ..ModelUsage::default() });
            let (run_id, session) = (Uuid::from_u128(7), Uuid::nil());
            let left_behind = EarlierRun::default();
            run.count_agent_run(&CountedRun { run_id, session, consumed, left_behind })
                .await
                .map(drop)
        }
        "append_log" => {
            let chunk = NewLogChunk {
                step: None,
                run_id: None,
                stream: "event",
                file_offset: None,
                line_count: 1,
                data: b"{}\n".to_vec(),
            };
            run.append_log(order, &[chunk]).await
        }
        other => panic!("no write called {other}"),
    }
}

/// Written by a run, one statement each: what is left of `sql/run` without the reads.
fn writes() -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/run");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !READS.contains(&name.as_str()))
        .collect();
    names.sort();
    assert!(names.len() > 7, "{names:?}");
    names
}

/// An order whose first owner has begun `create-branch` and `execute` and lost it to a second one.
async fn two_owners(pool: &PgPool) -> (WorkOrderId, RunStore, RunStore) {
    let store = Store::new(pool.clone());
    let id: String =
        sqlx::query_scalar("SELECT awo_enqueue('https://github.com/acme/app', 'Add a test')")
            .fetch_one(pool)
            .await
            .unwrap();
    let order: WorkOrderId = id.parse().unwrap();
    let begin = async |job: &Claimed| {
        let run = run_of(&store, job);
        run.start_step(&order, StepName::CreateBranch, 1, "runner", Uuid::nil()).await.unwrap();
        run.start_step(&order, StepName::Execute, 3, "command", Uuid::nil()).await.unwrap();
        run.intend(Effect::Push, "feat/x", &json!({})).await.unwrap();
        run
    };
    let first = claim(&store).await;
    let former = begin(&first).await;
    let back = Settlement::Interrupted("lost".to_owned());
    assert_eq!(store.settle(&[(first.fence(), &back)]).await.unwrap().len(), 1);
    let second = claim(&store).await;
    assert_eq!(second.job_id, first.job_id);
    let current = begin(&second).await;
    (order, former, current)
}

async fn changes<T>(pool: &PgPool, write: impl Future<Output = T>) -> (bool, T) {
    let before = everything(pool).await;
    let answer = write.await;
    (before != everything(pool).await, answer)
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn no_write_of_a_former_owner_changes_anything(pool: PgPool) {
    let (order, former, current) = two_owners(&pool).await;
    for name in writes() {
        let (changed, answer) = changes(&pool, write(&name, &former, &order)).await;
        assert!(!changed, "{name} under a stale epoch changed something");
        // To forget what is not there is no failure.
        let refused = matches!(answer, Err(RunError::Stale(_)));
        assert!(refused || name == "forget_steps", "{name} was not refused: {answer:?}");
    }
    for name in writes() {
        let (changed, answer) = changes(&pool, write(&name, &current, &order)).await;
        assert!(changed && answer.is_ok(), "{name} by its owner changed nothing: {answer:?}");
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn no_write_of_an_owner_from_before_a_restore_changes_anything(pool: PgPool) {
    let store = Store::new(pool.clone());
    let restored = "SELECT was::text FROM awo_after_restore()";
    let (order, _, dumped) = two_owners(&pool).await;
    let gone_on: Vec<String> = sqlx::query_scalar(restored).fetch_all(&pool).await.unwrap();
    assert_eq!(gone_on, ["running"]);
    let spent: (i32, i32) =
        sqlx::query_as("SELECT attempt, crash_count FROM awo.jobs").fetch_one(&pool).await.unwrap();
    assert_eq!(spent, (0, 0), "nothing is spent");
    let third = claim(&store).await;
    assert!(third.epoch > 1_700_000_000, "{}", third.epoch);
    for name in writes() {
        let (changed, _) = changes(&pool, write(&name, &dumped, &order)).await;
        assert!(!changed, "{name} by the owner in the dump changed something");
    }

    // The same dump once more, a little later: what was claimed in between is fenced off too.
    let back = Settlement::Interrupted("restored".to_owned());
    store.settle(&[(third.fence(), &back)]).await.unwrap();
    let again = claim(&store).await;
    sqlx::query_scalar::<_, String>(restored).fetch_all(&pool).await.unwrap();
    let last = claim(&store).await;
    assert!(last.epoch > again.epoch && again.epoch > third.epoch);
    let run = run_of(&store, &again);
    for name in writes() {
        let (changed, _) = changes(&pool, write(&name, &run, &order)).await;
        assert!(!changed, "{name} by the owner between two restores changed something");
    }
    let broken: Vec<String> =
        sqlx::query_scalar("SELECT broken FROM awo.invariants").fetch_all(&pool).await.unwrap();
    assert_eq!(broken, [""; 0]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_restore_cancels_what_was_to_be_cancelled(pool: PgPool) {
    two_owners(&pool).await;
    sqlx::query("SELECT awo_cancel(agent_work_order_id) FROM agent_work_orders")
        .execute(&pool)
        .await
        .unwrap();
    let gone_on = sqlx::query("SELECT * FROM awo_after_restore()").fetch_all(&pool).await.unwrap();
    assert!(gone_on.is_empty());
    let status: String =
        sqlx::query_scalar("SELECT status FROM agent_work_orders").fetch_one(&pool).await.unwrap();
    assert_eq!(status, "cancelled");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_artifact_whose_reply_was_lost_is_kept_once(pool: PgPool) {
    let (order, _, run) = two_owners(&pool).await;
    for _ in 0..2 {
        write("add_artifact", &run, &order).await.unwrap();
    }
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM public.agent_work_order_artifacts")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(kept, 1);
}
