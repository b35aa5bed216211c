//! What the runs of agents consumed: each noted before it starts and counted once.

use sqlx::types::Json;
use uuid::Uuid;

use super::{Database, Fence, RunError, RunStore, Store, StoreError};
use crate::{
    domain::{EarlierRun, ModelUsage, Prices, StepName, Usage},
    sql,
};

/// A run of an agent that is about to start.
#[derive(Debug, Clone)]
pub struct NewAgentRun {
    /// Marks its processes.
    pub run_id: Uuid,
    /// For which step.
    pub step: StepName,
    /// Which run of that step, from 1.
    pub attempt: i32,
    /// Its conversation.
    pub session: Uuid,
    /// The file of its output, among the outputs of its order.
    pub spool: String,
}

/// What a run of an agent consumed.
#[derive(Debug, Clone)]
pub struct CountedRun {
    /// Which run.
    pub run_id: Uuid,
    /// The conversation it had.
    pub session: Uuid,
    /// By model.
    pub consumed: Usage,
    /// What a later run of the conversation has to know.
    pub left_behind: EarlierRun,
}

/// A run that ended without being counted: its worker died, or was cut off.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct LostRun {
    /// Its place among the runs of all agents.
    pub id: i64,
    /// Which run.
    pub run_id: Uuid,
    /// For which step, unchecked.
    pub step_name: String,
    /// The conversation it was to have.
    pub session_id: Uuid,
    /// The file of its output, unchecked.
    pub spool: String,
    /// What earlier runs of that conversation left behind.
    pub earlier: Json<Vec<EarlierRun>>,
}

impl RunStore {
    /// Notes a run before it starts; answers what earlier runs of its conversation left behind.
    #[tracing::instrument(name = "db.agent_runs.begin", skip_all, fields(run.id = %run.run_id), err)]
    pub async fn begin_agent_run(&self, run: &NewAgentRun) -> Result<Vec<EarlierRun>, RunError> {
        let Json(earlier) = self
            .patiently("run/begin_agent_run", || {
                sqlx::query_scalar(sql!("run/begin_agent_run"))
                    .bind(self.fence().job_id)
                    .bind(self.fence().epoch)
                    .bind(run.run_id)
                    .bind(run.step.as_str())
                    .bind(run.attempt)
                    .bind(run.session)
                    .bind(&run.spool)
                    .fetch_optional(self.pool())
            })
            .await?
            .ok_or(RunError::Stale(self.fence()))?;
        Ok(earlier)
    }

    /// Counts a run that has ended; answers whether nobody had done so before.
    #[tracing::instrument(name = "db.agent_runs.count", skip_all, fields(run.id = %run.run_id), err)]
    pub async fn count_agent_run(&self, run: &CountedRun) -> Result<bool, RunError> {
        let Fence { job_id, epoch } = self.fence();
        self.patiently("run/count_agent_run", || count(self.pool(), run, (job_id, Some(epoch))))
            .await?
            .ok_or(RunError::Stale(self.fence()))
    }

    /// What models cost by the latest reports of agents, for runs that ended without one.
    #[tracing::instrument(name = "db.agent_runs.prices", skip_all, err)]
    pub async fn prices(&self, models: &[String]) -> Result<Prices, RunError> {
        self.patiently("run/reported_prices", || prices(self.pool(), models)).await
    }

    /// The next run of a former owner after the one numbered `after` that nobody has counted.
    #[tracing::instrument(name = "db.agent_runs.next_lost", skip_all, err)]
    pub async fn next_lost_run(&self, after: i64) -> Result<Option<LostRun>, RunError> {
        let Fence { job_id, epoch } = self.fence();
        self.patiently("run/next_lost_run", || next_lost(self.pool(), (job_id, Some(epoch)), after))
            .await
    }
}

/// Of jobs that have ended, whose runs belong to no owner any more.
impl Store {
    /// As [`RunStore::prices`].
    #[tracing::instrument(name = "db.agent_runs.prices", skip_all, err)]
    pub async fn prices(&self, models: &[String]) -> Result<Prices, StoreError> {
        prices(self.pool(), models).await.map_err(StoreError::on("run/reported_prices"))
    }

    /// The next run after the one numbered `after` that nobody has counted.
    #[tracing::instrument(name = "db.agent_runs.next_of_ended", skip_all, err)]
    pub async fn next_run_of_ended(
        &self,
        job_id: i64,
        after: i64,
    ) -> Result<Option<LostRun>, StoreError> {
        let next = next_lost(self.pool(), (job_id, None), after).await;
        next.map_err(StoreError::on("run/next_lost_run"))
    }

    /// Counts such a run; answers whether that was done now. It is not when somebody goes on with the job.
    #[tracing::instrument(name = "db.agent_runs.count_of_ended", skip_all, fields(run.id = %run.run_id), err)]
    pub async fn count_run_of_ended(
        &self,
        job_id: i64,
        run: &CountedRun,
    ) -> Result<bool, StoreError> {
        let counted = count(self.pool(), run, (job_id, None)).await;
        Ok(counted.map_err(StoreError::on("run/count_agent_run"))?.unwrap_or_default())
    }
}

async fn count(
    database: &Database,
    run: &CountedRun,
    (job_id, epoch): (i64, Option<i64>),
) -> Result<Option<bool>, sqlx::Error> {
    let total = run.consumed.total();
    let column = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
    sqlx::query_scalar(sql!("run/count_agent_run"))
        .bind(job_id)
        .bind(epoch)
        .bind(run.run_id)
        .bind(run.session)
        .bind(column(total.input_tokens))
        .bind(column(total.output_tokens))
        .bind(column(total.cache_read_tokens))
        .bind(column(total.cache_creation_tokens()))
        .bind(column(total.cache_creation_1h_tokens))
        .bind(total.cost_usd)
        .bind(Json(&run.consumed))
        .bind(run.left_behind.reported.as_ref().map(Json))
        .bind(Json(&run.left_behind.unreported))
        .fetch_optional(database)
        .await
}

async fn prices(database: &Database, models: &[String]) -> Result<Prices, sqlx::Error> {
    let reports: Vec<(String, Json<ModelUsage>)> =
        sqlx::query_as(sql!("run/reported_prices")).bind(models).fetch_all(database).await?;
    let mut prices = Prices::default();
    for (model, Json(usage)) in reports {
        prices.learn(&model, usage);
    }
    Ok(prices)
}

async fn next_lost(
    database: &Database,
    (job_id, epoch): (i64, Option<i64>),
    after: i64,
) -> Result<Option<LostRun>, sqlx::Error> {
    sqlx::query_as(sql!("run/next_lost_run"))
        .bind(job_id)
        .bind(epoch)
        .bind(after)
        .fetch_optional(database)
        .await
}
