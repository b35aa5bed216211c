//! Old and new side by side: the statements of the previous program, as `record` took them from the
//! history, on the schema of this one. `make upgrade-test` does the same with the programs themselves.
#![expect(clippy::unwrap_used, reason = "tests")]

mod previous;

use std::time::Duration;

use archon_awo::{
    clock::Clock,
    domain::{JobState, StepName},
    store::{Claimed, MIGRATOR, RunStore, Settlement, Store, migrate, schema_state},
};
use previous::Previous;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(30);

async fn order(pool: &PgPool) -> String {
    let insert = "insert into agent_work_orders (repository_url, user_request)
                  values ('acme/app', 'Add a test') returning agent_work_order_id";
    sqlx::query_scalar(insert).fetch_one(pool).await.unwrap()
}

/// One job for this program.
async fn claim(store: &Store) -> Claimed {
    let queues = ["default".to_owned()];
    let claim = store.claim(Uuid::new_v4(), &queues, 1, LEASE, Duration::ZERO).await.unwrap();
    claim.into_jobs().remove(0)
}

/// Makes all leases look as if their workers had died long ago.
async fn let_leases_run_out(pool: &PgPool) {
    let past = "update awo.leases set heartbeat_at = now() - interval '5 minutes',
                expires_at = now() - interval '4 minutes'";
    sqlx::query(past).execute(pool).await.unwrap();
}

async fn broken(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("select broken || ' ' || subject from awo.invariants")
        .fetch_all(pool)
        .await
        .unwrap()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn each_statement_of_the_previous_program_fits_this_schema(pool: PgPool) {
    let state = schema_state(&pool).await.unwrap();
    assert!(
        previous::version() < state.found,
        "tests/upgrade/previous is of schema version {}, which is no earlier than {}: tests/upgrade/record",
        previous::version(),
        state.found
    );
    let refused = previous::refused(&pool).await;
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[sqlx::test(migrations = false)]
async fn the_previous_program_works_on_while_and_after_this_one_migrates(pool: PgPool) {
    MIGRATOR.run_to(previous::version(), &pool).await.unwrap();
    let old = Previous::start(&pool).await;
    let orders = [order(&pool).await, old.enqueue("acme/other", "Add a test").await];
    let held = old.claim(2).await;
    assert_eq!(held.len(), 2, "{held:?}");
    for job in &held {
        assert_eq!(old.start_step(job, "create-branch", 1).await, Some(1));
    }
    assert_eq!(old.heartbeat(&held).await, 2);

    // Its connections stay open, with everything it has prepared on them.
    migrate(&pool).await.unwrap();
    assert_eq!(old.heartbeat(&held).await, 2, "the leases are its own as before");
    for job in &held {
        old.write_everything(job).await;
        assert_eq!(old.start_step(job, "planning", 2).await, Some(1));
    }
    assert_eq!(old.settle(&held[0], "succeeded").await, Some(JobState::Succeeded));

    // The other one is lost: this program takes it over where it stopped.
    let store = Store::new(pool.clone());
    let_leases_run_out(&pool).await;
    let seen = store.expired_leases().await.unwrap();
    let rescued = store.rescue(&seen, Duration::ZERO, Duration::ZERO).await.unwrap();
    assert_eq!(rescued.len(), 1, "{rescued:?}");
    assert_eq!(rescued[0].job_id, held[1].job_id);
    let job = claim(&store).await;
    assert_eq!((job.job_id, job.epoch), (held[1].job_id, held[1].epoch + 1));
    let run = RunStore::new(
        store.clone(),
        job.fence(),
        CancellationToken::new(),
        Clock::with_random(0.5),
    );
    let done = run.finished_steps().await.unwrap();
    assert_eq!(done.len(), 1, "{done:?}");
    let order = job.work_order_id.clone().unwrap().parse().unwrap();
    let started = run.start_step(&order, StepName::Planning, 2, "command", Uuid::nil()).await;
    assert_eq!(started.unwrap().runs, 2);

    // What the former owner still sends changes nothing.
    assert_eq!(old.heartbeat(&held[1..]).await, 0);
    assert_eq!(old.start_step(&held[1], "execute", 3).await, None);
    assert_eq!(old.settle(&held[1], "succeeded").await, None);

    // And the other way round: the previous program takes over from this one.
    let_leases_run_out(&pool).await;
    assert_eq!(old.rescue().await, [job.job_id]);
    let again = old.claim(1).await;
    assert_eq!((again[0].job_id, again[0].epoch), (job.job_id, job.epoch + 1));
    let late = store.settle(&[(job.fence(), &Settlement::Succeeded(None))]).await.unwrap();
    assert_eq!(late, [], "this program is the former owner now");
    assert_eq!(old.settle(&again[0], "succeeded").await, Some(JobState::Succeeded));
    for order in &orders {
        assert_eq!(old.status(order).await, "completed");
    }
    assert_eq!(broken(&pool).await, [""; 0]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn both_programs_claim_from_one_queue_and_share_its_limits(pool: PgPool) {
    let (old, store) = (Previous::start(&pool).await, Store::new(pool.clone()));
    for _ in 0..4 {
        order(&pool).await;
    }
    // The default limit of a repository is two: one for each, and no more for either.
    let (theirs, ours) = (old.claim(1).await, claim(&store).await);
    assert_ne!(theirs[0].job_id, ours.job_id);
    assert_eq!(old.claim(4).await.len(), 0);
    let settled = store.settle(&[(ours.fence(), &Settlement::Succeeded(None))]).await.unwrap();
    assert_eq!(settled[0].state, JobState::Succeeded);
    assert_eq!(old.claim(4).await.len(), 1, "the slot that was freed");
    assert_eq!(broken(&pool).await, [""; 0]);
}
