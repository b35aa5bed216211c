//! The writes of a run. Each carries the fencing token of its lease, and a stale one is refused
//! here: the statement changes nothing and the caller gets [`RunError::Stale`].

use std::{collections::HashMap, str::FromStr, time::Duration};

use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::{
    Fence, Store, StoreError,
    patience::{Patience, REFUSAL},
};
use crate::{
    clock::Clock,
    domain::{ErrorClass, StepName, WorkOrderId},
    sql,
};

/// Why a write of a run did not happen.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another owner has the job: stop, change nothing more.
    #[error("the lease of job {} epoch {} is no longer ours", .0.job_id, .0.epoch)]
    Stale(Fence),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An order as the workflow needs it.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(clippy::struct_excessive_bools, reason = "the columns of a row")]
pub struct OrderRecord {
    /// Its id, unchecked.
    pub agent_work_order_id: String,
    /// Where the code is, unchecked.
    pub repository_url: String,
    /// What to do, in words.
    pub user_request: String,
    /// The chosen steps, unchecked.
    pub selected_commands: Vec<String>,
    /// An issue whose text belongs to the request.
    pub github_issue_number: Option<String>,
    /// The branch, once it was made.
    pub git_branch_name: Option<String>,
    /// The pull request, once there was one.
    pub github_pull_request_url: Option<String>,
    /// Whether another one is opened where that was merged or closed.
    pub reopen: bool,
    /// When it was ordered.
    pub created_at: chrono::DateTime<chrono::Utc>,
    /// The branch to start from, when the order names one.
    pub base_branch: Option<String>,
    /// The branch to start from, when the repository's settings name one.
    pub default_branch: Option<String>,
    /// The form of its sandbox, unchecked.
    pub sandbox_type: String,
    /// Whether the repository's own agent configuration is obeyed.
    pub trusted: bool,
    /// Names of variables of the worker that the agent gets, unchecked.
    pub agent_environment: Vec<String>,
    /// Whether submodules are fetched.
    pub submodules: bool,
    /// Whether files of Git LFS are fetched.
    pub lfs: bool,
    /// Folders that are checked out, unchecked; empty for all.
    pub sparse_paths: Vec<String>,
    /// How much of the history is fetched: `full` or `shallow`.
    pub clone_depth: String,
    /// How often it was begun anew.
    pub restarts: i32,
}

/// A step that was started.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct StartedStep {
    /// Number of this run of the step, from 1.
    pub runs: i32,
    /// The agent's session: the same for all runs of a step.
    pub session_id: Uuid,
    /// Whether the run before this one was ended before it was done.
    pub interrupted: bool,
}

/// How a step ended.
#[derive(Debug, Clone)]
pub struct StepEnd {
    /// Who did it: `claude`, `command` or `runner`.
    pub agent_name: &'static str,
    /// Whether the step is done for good.
    pub success: bool,
    /// The checkpoint for later steps and resumed runs.
    pub output: Value,
    /// What people see as its output.
    pub text: Option<String>,
    /// Class of the failure, or `no_changes`.
    pub error_class: Option<ErrorClass>,
    /// Sentence of the failure.
    pub error_message: Option<String>,
    /// The conversation, where it is not the planned one.
    pub session: Option<Uuid>,
    /// How far its agent was shut in.
    pub isolation: Option<String>,
}

/// Facts of an order that became known; `None` leaves one as it is.
#[derive(Debug, Clone, Default)]
pub struct OrderFacts {
    /// The branch.
    pub branch: Option<String>,
    /// The folder of the sandbox below the repository volume.
    pub sandbox: Option<String>,
    /// The pull request.
    pub pull_request_url: Option<String>,
    /// Commits on the branch.
    pub commits: Option<i32>,
    /// Files changed by the branch.
    pub files_changed: Option<i32>,
}

/// Stages of the end of an attempt, as far as they were seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    /// The worker has heard of a request to cancel.
    pub cancel_heard: bool,
    /// No process of its agents is left.
    pub tree_empty: bool,
    /// Nobody holds its sandbox.
    pub released: bool,
}

/// The writes of one lease. Cheap to clone.
///
/// A write waits out an outage of the database: it is tried again until it is done or the lease is
/// known to be lost, so that a restart of Postgres costs no work. What the database refuses is tried for
/// some minutes, and what it will always refuse not again.
#[derive(Debug, Clone)]
pub struct RunStore {
    store: Store,
    fence: Fence,
    lost: CancellationToken,
    clock: Clock,
    refusal: Duration,
}

impl RunStore {
    /// Writes under `fence`, as long as `lost` is not cancelled.
    pub fn new(store: Store, fence: Fence, lost: CancellationToken, clock: Clock) -> Self {
        Self { store, fence, lost, clock, refusal: REFUSAL }
    }

    /// The same, which waits out a refusal of the database for so long.
    #[must_use]
    pub fn waiting_out(self, refusal: Duration) -> Self {
        Self { refusal, ..self }
    }

    /// Runs `statement` until it is answered.
    pub(super) async fn patiently<T, F>(
        &self,
        statement: &'static str,
        mut attempt: impl FnMut() -> F + Send,
    ) -> Result<T, RunError>
    where
        F: Future<Output = Result<T, sqlx::Error>> + Send,
    {
        let mut wait = Duration::from_millis(100);
        let mut refused: Option<Instant> = None;
        loop {
            let answer = tokio::select! {
                biased;
                answer = attempt() => answer,
                () = self.lost.cancelled() => return Err(RunError::Stale(self.fence)),
            };
            let error = match answer.map_err(StoreError::on(statement)) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match error.patience() {
                Patience::WhileLeased => refused = None,
                Patience::Minutes => {
                    let since = *refused.get_or_insert_with(|| self.clock.now());
                    if self.clock.now() - since >= self.refusal {
                        return Err(error.into());
                    }
                }
                Patience::Never => return Err(error.into()),
            }
            warn!(job.id = self.fence.job_id, "waiting for the database: {error}");
            tokio::select! {
                () = self.lost.cancelled() => return Err(RunError::Stale(self.fence)),
                () = self.clock.sleep(wait) => {}
            }
            wait = (wait * 2).min(Duration::from_secs(2));
        }
    }

    pub(super) fn pool(&self) -> &super::Database {
        self.store.pool()
    }

    /// The token every write carries.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// Reads the order of the job.
    #[tracing::instrument(name = "db.orders.load", skip_all, err)]
    pub async fn load_order(&self) -> Result<Option<OrderRecord>, RunError> {
        self.patiently("run/load_order", || {
            sqlx::query_as(sql!("run/load_order"))
                .bind(self.fence.job_id)
                .fetch_optional(self.store.pool())
        })
        .await
    }

    /// The host and the process id of the worker that was lost while it ran the job, if one was.
    #[tracing::instrument(name = "db.attempts.former_owner", skip_all, err)]
    pub async fn former_owner(&self) -> Result<Option<(String, i32)>, RunError> {
        self.patiently("run/former_owner", || {
            sqlx::query_as(sql!("run/former_owner"))
                .bind(self.fence.job_id)
                .bind(self.fence.epoch)
                .fetch_optional(self.store.pool())
        })
        .await
    }

    /// Reads the checkpoints of the job.
    #[tracing::instrument(name = "db.steps.finished", skip_all, err)]
    pub async fn finished_steps(&self) -> Result<HashMap<StepName, Value>, RunError> {
        let rows: Vec<(String, Option<Value>)> = self
            .patiently("run/finished_steps", || {
                sqlx::query_as(sql!("run/finished_steps"))
                    .bind(self.fence.job_id)
                    .fetch_all(self.store.pool())
            })
            .await?;
        let known = |(name, output): (String, Option<Value>)| {
            Some((StepName::from_str(&name).ok()?, output.unwrap_or_default()))
        };
        Ok(rows.into_iter().filter_map(known).collect())
    }

    /// Marks a step as running.
    #[tracing::instrument(name = "db.steps.start", skip_all, fields(step = %step), err)]
    pub async fn start_step(
        &self,
        order: &WorkOrderId,
        step: StepName,
        number: i32,
        agent_name: &str,
        session: Uuid,
    ) -> Result<StartedStep, RunError> {
        self.patiently("run/start_step", || {
            sqlx::query_as(sql!("run/start_step"))
                .bind(self.fence.job_id)
                .bind(self.fence.epoch)
                .bind(order.as_str())
                .bind(step.as_str())
                .bind(number)
                .bind(agent_name)
                .bind(session)
                .fetch_optional(self.store.pool())
        })
        .await?
        .ok_or(RunError::Stale(self.fence))
    }

    /// Ends a step; answers how many seconds it took.
    #[tracing::instrument(name = "db.steps.end", skip_all, fields(step = %step), err)]
    pub async fn end_step(
        &self,
        order: &WorkOrderId,
        step: StepName,
        number: i32,
        end: &StepEnd,
    ) -> Result<f64, RunError> {
        self.patiently("run/end_step", || {
            sqlx::query_scalar(sql!("run/end_step"))
                .bind(self.fence.job_id)
                .bind(self.fence.epoch)
                .bind(order.as_str())
                .bind(step.as_str())
                .bind(number)
                .bind(end.agent_name)
                .bind(end.success)
                .bind(&end.output)
                .bind(&end.text)
                .bind(end.error_class.map(ErrorClass::as_str))
                .bind(&end.error_message)
                .bind(end.session)
                .bind(&end.isolation)
                .fetch_optional(self.store.pool())
        })
        .await?
        .ok_or(RunError::Stale(self.fence))
    }

    /// Drops checkpoints whose results are gone.
    #[tracing::instrument(name = "db.steps.forget", skip_all, err)]
    pub async fn forget_steps(&self, steps: &[StepName]) -> Result<(), RunError> {
        let names: Vec<&str> = steps.iter().map(|step| step.as_str()).collect();
        self.patiently("run/forget_steps", || {
            sqlx::query(sql!("run/forget_steps"))
                .bind(self.fence.job_id)
                .bind(self.fence.epoch)
                .bind(&names)
                .execute(self.store.pool())
        })
        .await?;
        Ok(())
    }

    /// Counts that the order begins anew, and drops checkpoints; answers the count.
    #[tracing::instrument(name = "db.jobs.begin_anew", skip_all, err)]
    pub async fn begin_anew(&self, steps: &[StepName]) -> Result<i32, RunError> {
        let names: Vec<&str> = steps.iter().map(|step| step.as_str()).collect();
        let count = self.patiently("run/begin_anew", || {
            sqlx::query_scalar(sql!("run/begin_anew"))
                .bind(self.fence.job_id)
                .bind(self.fence.epoch)
                .bind(&names)
                .fetch_optional(self.store.pool())
        });
        count.await?.ok_or(RunError::Stale(self.fence))
    }

    /// Stores what became known of the order.
    #[tracing::instrument(name = "db.orders.update", skip_all, err)]
    pub async fn update_order(
        &self,
        order: &WorkOrderId,
        facts: &OrderFacts,
    ) -> Result<(), RunError> {
        let done = self
            .patiently("run/update_order", || {
                sqlx::query(sql!("run/update_order"))
                    .bind(self.fence.job_id)
                    .bind(self.fence.epoch)
                    .bind(order.as_str())
                    .bind(&facts.branch)
                    .bind(&facts.sandbox)
                    .bind(&facts.pull_request_url)
                    .bind(facts.commits)
                    .bind(facts.files_changed)
                    .execute(self.store.pool())
            })
            .await?;
        self.owned(done.rows_affected())
    }

    /// Notes stages of the end of the attempt, with the database's time; one that was noted before
    /// keeps its own.
    #[tracing::instrument(name = "db.attempts.note_stages", skip_all, err)]
    pub async fn note_stages(&self, stages: Stages) -> Result<(), RunError> {
        let done = self
            .patiently("run/note_stages", || {
                sqlx::query(sql!("run/note_stages"))
                    .bind(self.fence.job_id)
                    .bind(self.fence.epoch)
                    .bind(stages.cancel_heard)
                    .bind(stages.tree_empty)
                    .bind(stages.released)
                    .execute(self.store.pool())
            })
            .await?;
        self.owned(done.rows_affected())
    }

    /// A write that changed no row has found another owner.
    pub(super) fn owned(&self, rows: u64) -> Result<(), RunError> {
        if rows == 0 { Err(RunError::Stale(self.fence)) } else { Ok(()) }
    }
}
