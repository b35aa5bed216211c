//! What people ask for and about work orders: enqueue, list, show, follow, cancel, requeue.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, types::Json};
use tracing::instrument;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::{
    domain::{
        BranchName, JobState, OrderStatus, SandboxType, StepName, Steps, Usage, Waiting,
        WorkOrderId,
    },
    sql,
};

/// A work order to be; checked by the caller, and again by the database.
#[derive(Debug, Clone, Default)]
pub struct NewOrder {
    /// The repository's address.
    pub repository_url: String,
    /// What the agent should do.
    pub user_request: String,
    /// The steps; the repository's own default when `None`.
    pub steps: Option<Steps>,
    /// An issue whose text goes into the prompt.
    pub github_issue_number: Option<u64>,
    /// Higher runs first.
    pub priority: i16,
    /// Not before this time.
    pub run_at: Option<DateTime<Utc>>,
    /// Not before this many seconds from now, when `run_at` is `None`.
    pub delay_seconds: Option<f64>,
    /// A second order with the same key, while the first is open, is the first.
    pub idempotency_key: Option<String>,
    /// The id; a random one when `None`.
    pub id: Option<WorkOrderId>,
    /// The caller's W3C trace context.
    pub traceparent: Option<String>,
    /// The branch to start from and to merge into; the repository's own when `None`.
    pub base_branch: Option<BranchName>,
    /// The form of its sandbox; the repository's default when `None`.
    pub sandbox_type: Option<SandboxType>,
}

/// A work order in a list.
#[derive(Debug, Clone, FromRow, Serialize)]
#[expect(missing_docs, reason = "named after the columns of agent_work_orders")]
pub struct OrderSummary {
    pub agent_work_order_id: String,
    pub repository_url: String,
    pub user_request: String,
    pub status: String,
    pub current_phase: Option<String>,
    pub git_branch_name: Option<String>,
    pub github_pull_request_url: Option<String>,
    pub error_class: Option<String>,
    pub error_message: Option<String>,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    /// Why it does not run; `None` when it runs or has ended.
    pub waiting_for: Option<Json<Waiting>>,
}

/// A work order and the job that runs it.
#[derive(Debug, Clone, FromRow, Serialize)]
#[expect(missing_docs, reason = "named after the columns of agent_work_orders and awo.jobs")]
pub struct OrderDetail {
    pub agent_work_order_id: String,
    pub repository_url: String,
    pub user_request: String,
    pub status: String,
    pub current_phase: Option<String>,
    pub selected_commands: Vec<String>,
    pub workflow_type: Option<String>,
    pub sandbox_type: String,
    pub base_branch: Option<String>,
    pub github_issue_number: Option<String>,
    pub sandbox_identifier: Option<String>,
    pub git_branch_name: Option<String>,
    pub agent_session_id: Option<String>,
    pub github_pull_request_url: Option<String>,
    pub git_commit_count: i32,
    pub git_files_changed: i32,
    pub error_message: Option<String>,
    pub error_class: Option<String>,
    pub total_input_tokens: i64,
    pub total_output_tokens: i64,
    pub total_cache_read_tokens: i64,
    pub total_cache_creation_tokens: i64,
    pub total_cache_creation_1h_tokens: i64,
    pub total_cost_usd: f64,
    pub usage_by_model: Json<Usage>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    pub job_id: i64,
    pub job_state: JobState,
    pub queue: String,
    pub repo_key: String,
    pub priority: i16,
    pub run_at: DateTime<Utc>,
    pub attempt: i32,
    pub max_attempts: i32,
    pub crash_count: i32,
    pub interrupted_count: i32,
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// Set while it waits after a failure.
    pub next_attempt_at: Option<DateTime<Utc>>,
    pub waiting_since: Option<DateTime<Utc>>,
    pub gives_up_at: Option<DateTime<Utc>>,
    /// Why it does not run; `None` when it runs or has ended.
    pub waiting_for: Option<Json<Waiting>>,
    pub worker_hostname: Option<String>,
    pub worker_pid: Option<i32>,
    pub heartbeat_age_seconds: Option<f64>,
}

/// One run of a step that ended.
#[derive(Debug, Clone, FromRow, Serialize)]
#[expect(missing_docs, reason = "named after the columns of agent_work_order_steps")]
pub struct StepRun {
    pub step_order: i32,
    pub step_name: String,
    pub agent_name: String,
    pub attempt: i32,
    pub success: bool,
    pub output: Option<String>,
    pub error_message: Option<String>,
    pub error_class: Option<String>,
    pub duration_seconds: f64,
    pub session_id: Option<String>,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cache_read_tokens: i64,
    pub cache_creation_tokens: i64,
    pub cache_creation_1h_tokens: i64,
    pub cost_usd: f64,
    pub usage_by_model: Json<Usage>,
    pub epoch: i64,
    pub worker_id: Option<Uuid>,
    pub superseded_at: Option<DateTime<Utc>>,
    pub isolation: Option<String>,
    pub created_at: DateTime<Utc>,
}

/// One claim of an order by a worker.
#[derive(Debug, Clone, FromRow, Serialize)]
#[expect(missing_docs, reason = "named after the columns of awo.attempts")]
pub struct Attempt {
    pub epoch: i64,
    pub attempt: i32,
    pub worker_id: Uuid,
    pub worker_hostname: Option<String>,
    pub worker_pid: Option<i32>,
    pub claimed_at: DateTime<Utc>,
    pub first_step: Option<String>,
    pub ended_at: Option<DateTime<Utc>>,
    pub outcome: Option<String>,
    pub error_class: Option<String>,
    pub error_message: Option<String>,
    pub cancel_requested_at: Option<DateTime<Utc>>,
    pub cancel_acknowledged_at: Option<DateTime<Utc>>,
    pub tree_empty_at: Option<DateTime<Utc>>,
    pub released_at: Option<DateTime<Utc>>,
    pub silent_seconds: Option<f64>,
    pub worker_was: Option<String>,
}

/// How far a cancel has come. A stage without a time was not seen, not yet or never.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize)]
pub struct Cancellation {
    /// The status of the order.
    pub status: String,
    /// Somebody asked for it.
    pub requested_at: Option<DateTime<Utc>>,
    /// The worker had heard of it.
    pub acknowledged_at: Option<DateTime<Utc>>,
    /// No process of the order's agents was left.
    pub tree_empty_at: Option<DateTime<Utc>>,
    /// Nobody held the order's sandbox.
    pub released_at: Option<DateTime<Utc>>,
    /// From the request to `acknowledged_at`.
    pub acknowledged_seconds: Option<f64>,
    /// From the request to `tree_empty_at`.
    pub tree_empty_seconds: Option<f64>,
    /// From the request to `released_at`.
    pub released_seconds: Option<f64>,
}

/// An artifact, without its content.
#[derive(Debug, Clone, FromRow, Serialize)]
#[expect(missing_docs, reason = "named after the columns of agent_work_order_artifacts")]
pub struct Artifact {
    pub artifact_type: String,
    pub step_name: Option<String>,
    pub path: Option<String>,
    pub sha256: String,
    pub size_bytes: i64,
    pub created_at: DateTime<Utc>,
}

/// How far an order is.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize)]
pub struct OrderProgress {
    /// `pending`, `running`, `completed`, `failed` or `cancelled`.
    pub status: String,
    /// The step that runs.
    pub current_phase: Option<String>,
    /// How many steps were chosen.
    pub steps_total: i32,
    /// How many of them are done.
    pub steps_done: i32,
    /// Why it ended, when it did not complete.
    pub error_message: Option<String>,
    /// What it came to.
    pub github_pull_request_url: Option<String>,
    /// Why it does not run; `None` when it runs or has ended.
    pub waiting_for: Option<Json<Waiting>>,
}

/// A piece of an order's log.
#[derive(Debug, Clone, FromRow)]
pub struct LogChunk {
    /// 1, 2, 3… without gaps per order.
    pub seq: i64,
    /// The step that wrote it.
    pub step_name: Option<String>,
    /// The run of an agent that wrote it.
    pub run_id: Option<Uuid>,
    /// `stdout`, `stderr` or `event`.
    pub stream: String,
    /// What was written, usually whole lines.
    pub data: Vec<u8>,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
}

impl Store {
    /// Orders work and answers the order's id.
    #[instrument(name = "db.agent_work_orders.enqueue", skip_all)]
    pub async fn enqueue(&self, order: &NewOrder) -> Result<String, StoreError> {
        let steps: Option<Vec<&str>> = order
            .steps
            .as_ref()
            .map(|steps| steps.as_slice().iter().map(|step| step.as_str()).collect());
        sqlx::query_scalar(sql!("orders/enqueue"))
            .bind(&order.repository_url)
            .bind(&order.user_request)
            .bind(steps)
            .bind(order.github_issue_number.map(|number| number.to_string()))
            .bind(i32::from(order.priority))
            .bind(order.run_at)
            .bind(order.delay_seconds)
            .bind(&order.idempotency_key)
            .bind(order.id.as_ref().map(WorkOrderId::as_str))
            .bind(&order.traceparent)
            .bind(order.base_branch.as_ref().map(BranchName::as_str))
            .bind(order.sandbox_type.map(SandboxType::as_str))
            .fetch_one(self.pool())
            .await
            .map_err(StoreError::on("orders/enqueue"))
    }

    /// The newest orders, of one status or of all.
    #[instrument(name = "db.agent_work_orders.list", skip_all)]
    pub async fn list_orders(
        &self,
        status: Option<OrderStatus>,
        limit: u32,
    ) -> Result<Vec<OrderSummary>, StoreError> {
        sqlx::query_as(sql!("orders/list"))
            .bind(status.map(OrderStatus::as_str))
            .bind(i64::from(limit))
            .fetch_all(self.pool())
            .await
            .map_err(StoreError::on("orders/list"))
    }

    /// One order and its job.
    #[instrument(name = "db.agent_work_orders.find", skip_all)]
    pub async fn find_order(&self, id: &str) -> Result<Option<OrderDetail>, StoreError> {
        sqlx::query_as(sql!("orders/find"))
            .bind(id)
            .fetch_optional(self.pool())
            .await
            .map_err(StoreError::on("orders/find"))
    }

    /// Every run of a step of an order that ended, oldest first.
    #[instrument(name = "db.agent_work_order_steps.list", skip_all)]
    pub async fn step_runs(&self, id: &str) -> Result<Vec<StepRun>, StoreError> {
        sqlx::query_as(sql!("orders/steps"))
            .bind(id)
            .fetch_all(self.pool())
            .await
            .map_err(StoreError::on("orders/steps"))
    }

    /// Every claim of a job, oldest first.
    #[instrument(name = "db.attempts.list", skip_all)]
    pub async fn attempts(&self, job_id: i64) -> Result<Vec<Attempt>, StoreError> {
        sqlx::query_as(sql!("orders/attempts"))
            .bind(job_id)
            .fetch_all(self.pool())
            .await
            .map_err(StoreError::on("orders/attempts"))
    }

    /// What an order left behind, oldest first, without the contents.
    #[instrument(name = "db.agent_work_order_artifacts.list", skip_all)]
    pub async fn artifacts(&self, id: &str) -> Result<Vec<Artifact>, StoreError> {
        sqlx::query_as(sql!("orders/artifacts"))
            .bind(id)
            .fetch_all(self.pool())
            .await
            .map_err(StoreError::on("orders/artifacts"))
    }

    /// How far an order is.
    #[instrument(name = "db.agent_work_orders.progress", skip_all)]
    pub async fn order_progress(&self, id: &str) -> Result<Option<OrderProgress>, StoreError> {
        sqlx::query_as(sql!("orders/progress"))
            .bind(id)
            .fetch_optional(self.pool())
            .await
            .map_err(StoreError::on("orders/progress"))
    }

    /// The next at most `limit` pieces of an order's log after `after`, of one step or of all.
    #[instrument(name = "db.log_chunks.read", skip_all)]
    pub async fn log_chunks(
        &self,
        id: &str,
        after: i64,
        step: Option<StepName>,
        limit: u32,
    ) -> Result<Vec<LogChunk>, StoreError> {
        sqlx::query_as(sql!("orders/log_chunks"))
            .bind(id)
            .bind(after)
            .bind(step.map(StepName::as_str))
            .bind(i64::from(limit))
            .fetch_all(self.pool())
            .await
            .map_err(StoreError::on("orders/log_chunks"))
    }

    /// Cancels an order: `cancelled` at once, `requested` of its worker, or the state it had ended
    /// in before.
    #[instrument(name = "db.jobs.cancel", skip_all)]
    pub async fn cancel(&self, id: &str, reason: Option<&str>) -> Result<String, StoreError> {
        sqlx::query_scalar(sql!("orders/cancel"))
            .bind(id)
            .bind(reason)
            .fetch_one(self.pool())
            .await
            .map_err(StoreError::on("orders/cancel"))
    }

    /// How far the cancel of an order has come; `None` when there is no such order.
    #[instrument(name = "db.cancellations.find", skip_all)]
    pub async fn cancellation(&self, id: &str) -> Result<Option<Cancellation>, StoreError> {
        sqlx::query_as(sql!("orders/cancellation"))
            .bind(id)
            .fetch_optional(self.pool())
            .await
            .map_err(StoreError::on("orders/cancellation"))
    }

    /// Runs an order again, where it stopped or from an earlier step on. With `reopen` it gets another
    /// pull request where its own was merged or closed.
    #[instrument(name = "db.jobs.requeue", skip_all)]
    pub async fn requeue(
        &self,
        id: &str,
        from_step: Option<StepName>,
        reopen: bool,
    ) -> Result<String, StoreError> {
        sqlx::query_scalar(sql!("orders/requeue"))
            .bind(id)
            .bind(from_step.map(StepName::as_str))
            .bind(reopen)
            .fetch_one(self.pool())
            .await
            .map_err(StoreError::on("orders/requeue"))
    }
}
