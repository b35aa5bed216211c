//! Things done twice because somebody did not hear that they were done: statements whose reply was
//! lost, and orders that go back behind a push.

use std::time::Duration;

use archon_awo::{
    clock::Clock,
    domain::{StepName, WorkOrderId},
    store::{Claimed, NewLogChunk, RunStore, StepEnd, Store},
};
use nix::sys::signal::Signal;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::Harness;

async fn claim(store: &Store, worker: Uuid, limit: usize) -> Vec<Claimed> {
    let (queues, lease) = (["default".to_owned()], Duration::from_secs(30));
    store.claim(worker, &queues, limit, lease, Duration::ZERO).await.unwrap().into_jobs()
}

async fn claimed(pool: &PgPool) -> (RunStore, WorkOrderId) {
    let store = Store::new(pool.clone());
    let order: String = sqlx::query_scalar("select awo_enqueue('https://github.com/a/b', 'Work')")
        .fetch_one(pool)
        .await
        .unwrap();
    let claim = claim(&store, Uuid::new_v4(), 1).await;
    let clock = Clock::with_random(0.5);
    let run = RunStore::new(store, claim[0].fence(), CancellationToken::new(), clock);
    (run, order.parse().unwrap())
}

fn end(success: bool) -> StepEnd {
    StepEnd {
        session: None,
        isolation: None,
        agent_name: "command",
        success,
        output: serde_json::Value::Null,
        text: None,
        error_class: None,
        error_message: None,
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_step_whose_start_and_end_are_said_twice_happened_once(pool: PgPool) {
    let (run, order) = claimed(&pool).await;
    for (step, success) in [(StepName::CreateBranch, true), (StepName::Planning, false)] {
        for _ in 0..2 {
            let started = run.start_step(&order, step, 1, "command", Uuid::nil()).await.unwrap();
            assert_eq!(started.runs, 1);
        }
        for _ in 0..2 {
            run.end_step(&order, step, 1, &end(success)).await.unwrap();
        }
    }
    let rows: i64 = sqlx::query_scalar("select count(*) from agent_work_order_steps")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(rows, 2);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn log_entries_that_are_sent_twice_are_stored_once(pool: PgPool) {
    let (run, order) = claimed(&pool).await;
    let journal = Uuid::new_v4();
    let entry = |n: i64| NewLogChunk {
        step: None,
        run_id: Some(journal),
        stream: "event",
        file_offset: Some(n),
        line_count: 1,
        data: b"{}\n".to_vec(),
    };
    run.append_log(&order, &[entry(0), entry(1)]).await.unwrap();
    run.append_log(&order, &[entry(0), entry(1), entry(2)]).await.unwrap();
    let seqs: Vec<i64> = sqlx::query_scalar("select seq from awo.log_chunks order by seq")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(seqs, [1, 2, 3]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_standby_that_takes_no_writes_yet_is_waited_for(pool: PgPool) {
    let (run, order) = claimed(&pool).await;
    let read_only = |word: &str| {
        let statement = format!(
            "do $$ begin execute format('alter database %I set default_transaction_read_only = {word}',
                 current_database()); end $$"
        );
        let pool = pool.clone();
        async move {
            sqlx::raw_sql("set default_transaction_read_only = off").execute(&pool).await.unwrap();
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
        }
    };
    read_only("on").await;
    let standby = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .connect_with(pool.connect_options().as_ref().clone())
        .await
        .unwrap();
    let fence = run.fence();
    let store = Store::new(standby);
    let refused = store.settle(&[(fence, &archon_awo::store::Settlement::Succeeded(None))]).await;
    assert!(
        refused.as_ref().is_err_and(archon_awo::store::StoreError::is_transient),
        "{refused:?}"
    );
    read_only("off").await;
    run.start_step(&order, StepName::CreateBranch, 1, "command", Uuid::nil()).await.unwrap();
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_worker_stopped_while_it_claims_gives_the_job_back_untouched(pool: PgPool) {
    let mut harness = Harness::new(pool);
    sqlx::raw_sql(
        "create function wait_in_claim() returns trigger language plpgsql as $$ begin
             perform pg_advisory_xact_lock(4243); return new; end $$;
         create trigger wait_in_claim before insert on awo.leases
             for each row execute function wait_in_claim()",
    )
    .execute(&harness.pool)
    .await
    .unwrap();
    let mut lock = harness.pool.acquire().await.unwrap();
    sqlx::query("select pg_advisory_lock(4243)").execute(&mut *lock).await.unwrap();
    let worker = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness
        .until("select exists (select 1 from pg_locks l join pg_database d on d.oid = l.database
                where d.datname = current_database() and l.locktype = 'advisory' and not l.granted)")
        .await;
    harness.signal(worker, Signal::SIGTERM);
    harness.until_logged("taking no new work orders").await;
    sqlx::query("select pg_advisory_unlock(4243)").execute(&mut *lock).await.unwrap();
    assert_eq!(harness.ended(worker).await, Some(0));
    let job: (String, i32, i32, i32, i64) = sqlx::query_as(
        "select state::text, attempt, crash_count, interrupted_count, lease_epoch from awo.jobs",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert_eq!(job, ("queued".to_owned(), 0, 0, 1, 1));
    assert!(harness.steps(&order).await.is_empty());
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_order_sent_back_behind_its_push_keeps_its_branch_and_pull_request(pool: PgPool) {
    let mut harness = Harness::new(pool);
    // No pull request can be written here: the order fails after its push.
    std::fs::write(harness.path("remote.git/awo"), "in the way").unwrap();
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "failed").await;
    assert_eq!(harness.deliveries().0.len(), 1, "pushed");
    std::fs::remove_file(harness.path("remote.git/awo")).unwrap();
    harness.tell_agent("more", "and more\n");
    sqlx::query("select awo_requeue($1, from_step => 'execute')")
        .bind(&order)
        .execute(&harness.pool)
        .await
        .unwrap();
    harness.until("select status = 'completed' from agent_work_orders").await;
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.len(), pulls.len()), (1, 1), "{branches:?} {pulls:?}");
    for (name, head) in [("branch", &branches[0]), ("pull request", &pulls[0])] {
        let text = harness.git(&["-C", "remote.git", "show", &format!("{head}:more.txt")]);
        assert_eq!(text, "and more\n", "{name}");
    }
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn two_tries_of_one_entry_at_the_same_time_leave_one_entry_and_no_gap(pool: PgPool) {
    let (run, order) = claimed(&pool).await;
    let journal = Uuid::new_v4();
    for n in 0..20 {
        let entry = [NewLogChunk {
            step: None,
            run_id: Some(journal),
            stream: "event",
            file_offset: Some(n),
            line_count: 1,
            data: b"{}\n".to_vec(),
        }];
        let tries = futures::future::join_all((0..4).map(|_| run.append_log(&order, &entry)));
        for answer in tries.await {
            answer.unwrap();
        }
    }
    let seqs: Vec<i64> = sqlx::query_scalar("select seq from awo.log_chunks order by seq")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(seqs, (1..=20).collect::<Vec<_>>());
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_claim_whose_answer_was_lost_is_given_back_without_a_cost(pool: PgPool) {
    let store = Store::new(pool.clone());
    for _ in 0..2 {
        sqlx::query("select awo_enqueue('acme/app', 'Do it')").execute(&pool).await.unwrap();
    }
    let (worker, other) = (Uuid::new_v4(), Uuid::new_v4());
    let queues = ["default".to_owned()];
    let known = claim(&store, worker, 1).await;
    let lost = claim(&store, worker, 1).await;
    let held = [known[0].job_id];
    assert_eq!(store.give_back_unheld(other, &queues, &[]).await.unwrap(), 0, "not theirs");
    let elsewhere = ["maintenance".to_owned()];
    assert_eq!(store.give_back_unheld(worker, &elsewhere, &held).await.unwrap(), 0, "other lane");
    assert_eq!(store.give_back_unheld(worker, &queues, &held).await.unwrap(), 1);
    let (state, attempt, crashes): (String, i32, i32) =
        sqlx::query_as("select state::text, attempt, crash_count from awo.jobs where id = $1")
            .bind(lost[0].job_id)
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!((state.as_str(), attempt, crashes), ("queued", 0, 0));
    let again = claim(&store, worker, 2).await;
    assert_eq!(again.len(), 1);
    assert!(again[0].epoch > lost[0].epoch, "the lost claim stays fenced off");
    let broken: i64 =
        sqlx::query_scalar("select count(*) from awo.invariants").fetch_one(&pool).await.unwrap();
    assert_eq!(broken, 0);
}
