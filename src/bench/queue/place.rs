//! The database of a run: made for it on the server that was named, and dropped after it.

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{ConnectOptions, PgPool, migrate::MigrateDatabase, postgres::PgConnectOptions};

use super::{
    super::{Database, real},
    QueueBench,
};
use crate::{
    sql,
    store::{self, DatabaseMode},
};

/// Connections of our side and of the floor.
pub const CONNECTIONS: u32 = 8;

/// Repositories that jobs are spread over.
pub const REPOSITORIES: i32 = 50;

/// A database of our own.
pub struct Place {
    /// Where it is.
    pub url: SecretString,
    /// Connections to it, for our side and for the floor alike.
    pub pool: PgPool,
}

impl Place {
    /// Creates and migrates it.
    pub async fn make(plan: &QueueBench) -> anyhow::Result<Self> {
        let server = store::options(&plan.url, DatabaseMode::Direct)?;
        let name = format!("awo_bench_{}", uuid::Uuid::new_v4().simple());
        let url = SecretString::from(server.database(&name).to_url_lossy().to_string());
        sqlx::Postgres::create_database(url.expose_secret()).await.context(
            "cannot create a database to measure with: DATABASE_URL must name a role that may \
             (`.ci/with-postgres` starts a server where it may)",
        )?;
        let place = async {
            let database = store::connect(&url, DatabaseMode::Direct, CONNECTIONS).await?;
            store::migrate(&database).await?;
            sqlx::raw_sql(sql!("bench/create_floor")).execute(&database).await?;
            anyhow::Ok(database.connections().clone())
        };
        match place.await {
            Ok(pool) => Ok(Self { url, pool }),
            Err(error) => {
                let _ = sqlx::Postgres::force_drop_database(url.expose_secret()).await;
                Err(error.context("cannot prepare the database to measure with"))
            }
        }
    }

    /// Drops it.
    pub async fn remove(self) -> anyhow::Result<()> {
        self.pool.close().await;
        let name = self.options()?.get_database().unwrap_or_default().to_owned();
        sqlx::Postgres::force_drop_database(self.url.expose_secret())
            .await
            .with_context(|| format!("cannot drop the database {name}: drop it by hand"))
    }

    /// How to connect to it.
    pub fn options(&self) -> anyhow::Result<PgConnectOptions> {
        Ok(store::options(&self.url, DatabaseMode::Direct)?)
    }

    /// What the server says of itself.
    pub async fn server(&self) -> anyhow::Result<Database> {
        Ok(sqlx::query_as(sql!("bench/server")).fetch_one(&self.pool).await?)
    }

    /// Lets each of the repositories run `limit` jobs.
    pub async fn limit_repositories(&self, limit: i16) -> anyhow::Result<()> {
        let add = sqlx::query(sql!("bench/add_repositories")).bind(REPOSITORIES).bind(limit);
        add.execute(&self.pool).await?;
        Ok(())
    }

    /// Nothing waits and nothing has ended.
    pub async fn empty(&self) -> anyhow::Result<()> {
        sqlx::raw_sql(sql!("bench/empty")).execute(&self.pool).await?;
        Ok(())
    }

    /// `jobs` wait on our side and on the floor's.
    pub async fn fill(&self, jobs: usize) -> anyhow::Result<()> {
        let jobs = i64::try_from(jobs)?;
        let fill = sqlx::query(sql!("bench/fill_jobs")).bind(jobs).bind(REPOSITORIES);
        self.without_triggers(fill).await?;
        sqlx::query(sql!("bench/fill_floor")).bind(jobs).execute(&self.pool).await?;
        Ok(())
    }

    /// `jobs` have ended.
    pub async fn fill_finished(&self, jobs: usize) -> anyhow::Result<()> {
        let jobs = i64::try_from(jobs)?;
        let fill = sqlx::query(sql!("bench/fill_finished")).bind(jobs).bind(REPOSITORIES);
        self.without_triggers(fill).await
    }

    /// `jobs` of one repository wait and go before all others.
    pub async fn fill_busy(&self, jobs: usize, repository: &str) -> anyhow::Result<()> {
        let jobs = i64::try_from(jobs)?;
        let fill = sqlx::query(sql!("bench/fill_busy")).bind(jobs).bind(repository.to_owned());
        self.without_triggers(fill).await
    }

    /// Tables as an idle night leaves them: vacuumed, analysed, on disk.
    pub async fn settle_down(&self) -> anyhow::Result<()> {
        sqlx::raw_sql(sql!("bench/vacuum")).execute(&self.pool).await?;
        // A role that may not do this measures beside the server's own checkpoint.
        let _ = sqlx::raw_sql(sql!("bench/checkpoint")).execute(&self.pool).await;
        Ok(())
    }

    async fn without_triggers(
        &self,
        fill: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
    ) -> anyhow::Result<()> {
        sqlx::raw_sql(sql!("bench/pause_triggers")).execute(&self.pool).await?;
        let filled = fill.execute(&self.pool).await;
        sqlx::raw_sql(sql!("bench/resume_triggers")).execute(&self.pool).await?;
        filled?;
        Ok(())
    }
}

/// Jobs a second.
pub fn rate(jobs: usize, time: std::time::Duration) -> f64 {
    real(jobs as u64) / time.as_secs_f64().max(1e-9)
}
