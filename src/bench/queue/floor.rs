//! The barest claim and completion: two statements on a table without rules.

use std::time::Duration;

use futures::future::try_join_all;
use sqlx::PgPool;

use super::place::CONNECTIONS;
use crate::{clock::Clock, sql};

/// Claims and completes what waits, one job per statement over every connection; answers the time.
pub async fn one_by_one(pool: &PgPool, clock: &Clock) -> anyhow::Result<Duration> {
    let work = || async {
        let mut connection = pool.acquire().await?;
        loop {
            let claim = sqlx::query_scalar(sql!("bench/floor_claim_one"));
            let claimed: Option<i64> = claim.fetch_optional(&mut *connection).await?;
            let Some(id) = claimed else { return Ok::<_, sqlx::Error>(()) };
            let complete = sqlx::query(sql!("bench/floor_complete_one")).bind(id);
            complete.execute(&mut *connection).await?;
        }
    };
    let start = clock.now();
    try_join_all((0..CONNECTIONS).map(|_| work())).await?;
    Ok(clock.now() - start)
}

/// The same with `size` jobs per statement.
pub async fn batched(pool: &PgPool, clock: &Clock, size: usize) -> anyhow::Result<Duration> {
    let size = i64::try_from(size)?;
    let work = || async {
        let mut connection = pool.acquire().await?;
        loop {
            let claim = sqlx::query_scalar(sql!("bench/floor_claim_batch")).bind(size);
            let claimed: Vec<i64> = claim.fetch_all(&mut *connection).await?;
            if claimed.is_empty() {
                return Ok::<_, sqlx::Error>(());
            }
            let complete = sqlx::query(sql!("bench/floor_complete_batch")).bind(claimed);
            complete.execute(&mut *connection).await?;
        }
    };
    let start = clock.now();
    try_join_all((0..CONNECTIONS).map(|_| work())).await?;
    Ok(clock.now() - start)
}
