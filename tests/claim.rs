//! Which job a claim takes, and which it leaves.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use archon_awo::store::{Claim, Store};
use sqlx::PgPool;
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(30);
const AGING: Duration = Duration::from_mins(15);

/// A job of `repository` that has waited for `minutes`, with its name as its payload.
async fn job(pool: &PgPool, name: &str, repository: &str, priority: i16, minutes: i32) {
    sqlx::query(
        "INSERT INTO awo.jobs (kind, repo_key, priority, run_at, payload)
         VALUES ('noop', $2, $3, now() - $4 * interval '1 minute', jsonb_build_object('name', $1))",
    )
    .bind(name)
    .bind(repository)
    .bind(priority)
    .bind(minutes)
    .execute(pool)
    .await
    .unwrap();
}

async fn limit(pool: &PgPool, repository: &str, limit: i32) {
    sqlx::query("SELECT awo_set_repository_limit($1, $2)")
        .bind(repository)
        .bind(limit)
        .execute(pool)
        .await
        .unwrap();
}

async fn claim(pool: &PgPool, slots: usize, aging: Duration) -> Claim {
    let queues = ["default".to_owned()];
    Store::new(pool.clone()).claim(Uuid::new_v4(), &queues, slots, LEASE, aging).await.unwrap()
}

/// The names of what a claim took, in the order of the names.
async fn names(pool: &PgPool, slots: usize, aging: Duration) -> Vec<String> {
    let jobs = claim(pool, slots, aging).await.into_jobs();
    let mut names: Vec<_> =
        jobs.iter().map(|job| job.payload["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_job_that_waits_long_enough_goes_before_a_more_urgent_one(pool: PgPool) {
    job(&pool, "new and urgent", "a", 2, 0).await;
    job(&pool, "old", "b", 0, 46).await;
    job(&pool, "younger", "c", 0, 44).await;
    assert_eq!(names(&pool, 1, AGING).await, ["old"]);
    assert_eq!(names(&pool, 1, Duration::ZERO).await, ["new and urgent"]);
    assert_eq!(names(&pool, 1, AGING).await, ["younger"]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_old_job_is_seen_behind_any_number_of_urgent_ones(pool: PgPool) {
    for number in 0..200 {
        job(&pool, "urgent", &format!("r{}", number % 4), 3, 1).await;
    }
    job(&pool, "old", "r1", 0, 61).await;
    assert_eq!(names(&pool, 1, AGING).await, ["old"]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_full_or_paused_repository_blocks_no_other(pool: PgPool) {
    for _ in 0..100 {
        job(&pool, "full", "full", 5, 10).await;
        job(&pool, "paused", "paused", 5, 10).await;
    }
    limit(&pool, "full", 1).await;
    sqlx::query("UPDATE awo.repositories SET paused_at = now() WHERE repo_key = 'paused'")
        .execute(&pool)
        .await
        .unwrap();
    job(&pool, "free", "free", 0, 0).await;
    job(&pool, "old", "other", 0, 300).await;
    assert_eq!(names(&pool, 4, AGING).await, ["free", "full", "old"]);
    let Claim::Nothing { due } = claim(&pool, 4, AGING).await else { panic!("a job was claimed") };
    assert_eq!(due, None, "what is blocked is not due");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_claim_fills_all_slots_although_one_repository_waits_first(pool: PgPool) {
    for number in 0..60 {
        job(&pool, &format!("first {number:02}"), "first", 5, 10).await;
    }
    for number in 0..10 {
        job(&pool, &format!("next {number}"), &format!("r{number}"), 0, 0).await;
    }
    limit(&pool, "first", 2).await;
    let taken = names(&pool, 8, AGING).await;
    assert_eq!(taken.iter().filter(|name| name.starts_with("first")).count(), 2, "{taken:?}");
    assert_eq!(taken.len(), 8, "{taken:?}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_claim_that_found_only_locked_jobs_looks_again_soon(pool: PgPool) {
    job(&pool, "held", "a", 0, 0).await;
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("SELECT id FROM awo.jobs FOR UPDATE").execute(&mut *transaction).await.unwrap();
    let Claim::Nothing { due } = claim(&pool, 1, AGING).await else { panic!("it is held") };
    assert!(due.is_some_and(|due| due < Duration::from_secs(1)), "{due:?}");
    transaction.rollback().await.unwrap();
    assert_eq!(names(&pool, 1, AGING).await, ["held"]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_idle_claim_says_when_the_next_job_is_due(pool: PgPool) {
    job(&pool, "later", "a", 0, -2).await;
    job(&pool, "much later", "b", 9, -60).await;
    let Claim::Nothing { due } = claim(&pool, 1, AGING).await else { panic!("nothing is due") };
    let due = due.unwrap().as_secs();
    assert!((110..=120).contains(&due), "{due}");
}
