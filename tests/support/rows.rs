//! Rows as the engine writes them: orders, claims and ends, for tests of the schema.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part")]

use archon_awo::domain::JobState;
use sqlx::{AssertSqlSafe, PgPool, Row};

pub const REPOSITORY: &str = "https://github.com/acme/app";

/// An order and its job, inserted the shortest way.
pub async fn order(pool: &PgPool) -> (String, i64) {
    order_in(pool, REPOSITORY).await
}

/// The same for a repository.
pub async fn order_in(pool: &PgPool, url: &str) -> (String, i64) {
    sqlx::query_as(
        "INSERT INTO agent_work_orders (repository_url, user_request) VALUES ($1, 'Add a test')
         RETURNING agent_work_order_id, awo_job_id",
    )
    .bind(url)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Claims a job in one statement, as a worker does; `None` when no slot is free.
pub async fn claim(pool: &PgPool, job: i64) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "WITH lease AS (
             INSERT INTO awo.leases (job_id, epoch, worker_id, repo_key, slot, expires_at)
             SELECT j.id, j.lease_epoch + 1, gen_random_uuid(), j.repo_key, s.slot, now() + interval '30 s'
             FROM awo.jobs j JOIN awo.repositories r ON r.repo_key = j.repo_key
             CROSS JOIN LATERAL (
                 SELECT g AS slot FROM generate_series(1, r.max_concurrent) AS g
                 WHERE NOT EXISTS (
                     SELECT 1 FROM awo.leases l WHERE l.repo_key = j.repo_key AND l.slot = g)
                 LIMIT 1) s
             WHERE j.id = $1 RETURNING *),
         attempt AS (
             INSERT INTO awo.attempts (job_id, epoch, attempt, worker_id)
             SELECT job_id, epoch, 1, worker_id FROM lease)
         UPDATE awo.jobs j SET state = 'running', attempt = attempt + 1, lease_epoch = lease.epoch
         FROM lease WHERE j.id = lease.job_id RETURNING j.lease_epoch",
    )
    .bind(job)
    .fetch_optional(pool)
    .await
}

/// Ends a run: the lease goes in the statement that changes the state.
pub async fn settle(pool: &PgPool, job: i64, state: JobState) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH gone AS (DELETE FROM awo.leases WHERE job_id = $1 RETURNING job_id, epoch),
         ended AS (
             UPDATE awo.attempts a SET ended_at = now() FROM gone
             WHERE a.job_id = gone.job_id AND a.epoch = gone.epoch)
         UPDATE awo.jobs j SET state = $2 FROM gone WHERE j.id = gone.job_id",
    )
    .bind(job)
    .bind(state)
    .execute(pool)
    .await
    .map(|_| ())
}

/// `update awo.jobs set state = …`, as somebody at psql would.
pub async fn set_state(pool: &PgPool, job: i64, state: JobState) -> Result<(), sqlx::Error> {
    let update = sqlx::query("UPDATE awo.jobs SET state = $2 WHERE id = $1");
    update.bind(job).bind(state).execute(pool).await.map(|_| ())
}

/// A fresh job, brought to `state` by the steps of the engine.
pub async fn job_in(pool: &PgPool, state: JobState) -> (String, i64) {
    let (order, job) = order_in(pool, &format!("https://github.com/acme/{state:?}")).await;
    if matches!(state, JobState::Failed | JobState::Cancelled) {
        set_state(pool, job, state).await.unwrap();
    } else if state != JobState::Queued {
        sqlx::query("UPDATE awo.repositories SET max_concurrent = 64").execute(pool).await.unwrap();
        claim(pool, job).await.unwrap().unwrap();
        if state != JobState::Running {
            settle(pool, job, state).await.unwrap();
        }
    }
    (order, job)
}

pub async fn state(pool: &PgPool, job: i64) -> JobState {
    let read = sqlx::query_scalar("SELECT state FROM awo.jobs WHERE id = $1").bind(job);
    read.fetch_one(pool).await.unwrap()
}

pub async fn status(pool: &PgPool, order: &str) -> String {
    let read =
        sqlx::query_scalar("SELECT status FROM agent_work_orders WHERE agent_work_order_id = $1");
    read.bind(order).fetch_one(pool).await.unwrap()
}

/// Runs `statement` as it is; for statements whose text is the test.
pub async fn run(pool: &PgPool, statement: &str) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(statement.to_owned())).execute(pool).await.map(|_| ())
}

/// The first column of the only row, as text.
pub async fn text(pool: &PgPool, statement: &str) -> Option<String> {
    let row = sqlx::query(AssertSqlSafe(statement.to_owned())).fetch_one(pool).await.unwrap();
    row.try_get(0).unwrap()
}

pub async fn count(pool: &PgPool, statement: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(statement.to_owned())).fetch_one(pool).await.unwrap()
}

/// The words in which the database refused.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, sqlx::Error>) -> String {
    let error = match result {
        Ok(value) => panic!("was accepted: {value:?}"),
        Err(error) => error,
    };
    error.as_database_error().map_or_else(|| panic!("{error}"), |e| e.message().to_owned())
}

/// What `awo.invariants` shows, as `broken subject` lines.
pub async fn broken(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("SELECT broken || ' ' || subject FROM awo.invariants")
        .fetch_all(pool)
        .await
        .unwrap()
}

/// Makes the schema look as if a newer program had migrated it.
pub async fn newer_schema(pool: &PgPool) {
    let record = "INSERT INTO awo._sqlx_migrations
        (version, description, success, checksum, execution_time)
        VALUES (9999, 'from the future', true, '', 1)";
    run(pool, record).await.unwrap();
}
