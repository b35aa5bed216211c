//! The stream of orders: as many open at once as were asked for, some of them cancelled.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::bail;
use serde_json::json;
use sqlx::PgPool;

/// One order in this many is cancelled while it runs.
const CANCELLED: usize = 11;

/// Orders that the database has acknowledged.
#[derive(Debug, Default)]
pub struct Orders {
    pub accepted: Vec<String>,
    /// Those that a cancel was acknowledged for.
    pub cancelled: BTreeSet<String>,
}

/// How things stand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing {
    pub open: usize,
    pub ended: usize,
}

impl Orders {
    /// Orders until `open` are open; cancels those whose turn it is. A database that is away is
    /// asked again by the next call.
    pub async fn look_after(
        &mut self,
        pool: &PgPool,
        remotes: &[String],
        open: usize,
    ) -> Result<Standing, sqlx::Error> {
        let mut standing = standing(pool).await?;
        while standing.open < open {
            let number = self.accepted.len();
            let id = format!("wo-f{number:05}");
            order(pool, &id, &remotes[number % remotes.len()]).await?;
            self.accepted.push(id);
            standing.open += 1;
        }
        self.cancel(pool).await?;
        Ok(standing)
    }

    async fn cancel(&mut self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let running: Vec<String> = sqlx::query_scalar(
            "select j.work_order_id from awo.jobs j join awo.steps s on s.job_id = j.id
             where j.state = 'running' and s.step_name = 'execute' and s.finished_at is null
               and s.started_at < now() - interval '300 milliseconds'",
        )
        .fetch_all(pool)
        .await?;
        for id in running {
            let number: usize = id.trim_start_matches("wo-f").parse().unwrap_or_default();
            if number % CANCELLED == CANCELLED / 2 && !self.cancelled.contains(&id) {
                let cancel = sqlx::query_scalar("select awo_cancel($1, 'not needed')");
                let _: String = cancel.bind(&id).fetch_one(pool).await?;
                self.cancelled.insert(id);
            }
        }
        Ok(())
    }

    /// Waits until every order has ended.
    pub async fn all_ended(&mut self, pool: &PgPool, patience: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            if let Ok(standing) = self.look_after(pool, &[], 0).await
                && standing.open == 0
            {
                return Ok(());
            }
            if began.elapsed() > patience {
                bail!("orders did not end within {patience:?}: {:?}", open(pool).await?);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Orders work under an id of our own, so that a lost answer costs nothing: it may be said twice.
pub async fn order(pool: &PgPool, id: &str, remote: &str) -> Result<(), sqlx::Error> {
    let payload = json!({
        "agent_work_order_id": id, "repository_url": remote, "user_request": "Write a file",
    });
    let insert = sqlx::query(
        "insert into awo.jobs (kind, payload, max_attempts, max_crashes)
         values ('work_order', $1, 100, 100)",
    );
    match insert.bind(payload).execute(pool).await {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(()),
        other => other.map(drop),
    }
}

async fn standing(pool: &PgPool) -> Result<Standing, sqlx::Error> {
    let (open, all): (i64, i64) = sqlx::query_as(
        "select count(*) filter (where state in ('queued', 'running', 'waiting')), count(*)
         from awo.jobs where kind = 'work_order'",
    )
    .fetch_one(pool)
    .await?;
    let (open, all) = (usize::try_from(open).unwrap(), usize::try_from(all).unwrap());
    Ok(Standing { open, ended: all - open })
}

async fn open(pool: &PgPool) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select concat_ws(' ', j.work_order_id, j.state, 'attempt', j.attempt, 'crashes',
             j.crash_count, 'due', j.run_at - now(), j.last_error, 'lease', l.epoch, 'until',
             l.expires_at - now(), l.progress)
         from awo.jobs j left join awo.leases l on l.job_id = j.id
         where j.state in ('queued', 'running', 'waiting') order by j.id",
    )
    .fetch_all(pool)
    .await
}
