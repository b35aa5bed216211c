//! The statements of the queue: claim, heartbeat, settle, rescue. The rules are in `sql/queue/`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgExecutor, Row, postgres::PgRow};
use uuid::Uuid;

use super::{Store, StoreError};
use crate::{
    domain::{ErrorClass, JobState},
    sql,
};

/// The fencing token: a write that carries an old epoch changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The job.
    pub job_id: i64,
    /// Which claim of it; grows with every claim.
    pub epoch: i64,
}

/// A worker process as it introduces itself at its start.
#[derive(Debug, Clone)]
pub struct WorkerRecord {
    /// Drawn anew at every start.
    pub worker_id: Uuid,
    /// Where it runs, for people.
    pub hostname: String,
    /// Its process id, for people.
    pub pid: i32,
    /// Queues it serves.
    pub queues: Vec<String>,
    /// How many jobs it runs at once.
    pub max_concurrent: i32,
    /// The kinds of jobs it can run; `None` when that is not told.
    pub kinds: Option<Vec<String>>,
}

/// A job that was leased to this worker.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Claimed {
    /// The job.
    pub job_id: i64,
    /// The epoch of the lease.
    pub epoch: i64,
    /// What to do with it.
    pub kind: String,
    /// The order, for kind `work_order`.
    pub work_order_id: Option<String>,
    /// Number of this attempt, from 1.
    pub attempt: i32,
    /// Attempts allowed.
    pub max_attempts: i32,
    /// How often its worker died before.
    pub crash_count: i32,
    /// Attempts in a row that failed for a cause outside of the order.
    pub waits: i32,
    /// How often in a row it was put back because it could not run.
    pub put_back_count: i32,
    /// When that was the first time.
    pub put_back_since: Option<DateTime<Utc>>,
    /// Input of the job.
    pub payload: serde_json::Value,
    /// W3C trace context of whoever ordered it.
    pub traceparent: Option<String>,
    /// The queue it came from.
    pub queue: String,
    /// Seconds it waited since it was due.
    pub waited_seconds: f64,
}

impl Claimed {
    /// The fencing token of this claim.
    pub fn fence(&self) -> Fence {
        Fence { job_id: self.job_id, epoch: self.epoch }
    }
}

/// The answer to a claim.
#[derive(Debug, Clone)]
pub enum Claim {
    /// These jobs are leased to the worker now.
    Jobs(Vec<Claimed>),
    /// Nothing can be claimed now.
    Nothing {
        /// Time until the next scheduled job is due, if there is one.
        due: Option<Duration>,
    },
}

impl Claim {
    /// The jobs, if there were any.
    pub fn into_jobs(self) -> Vec<Claimed> {
        match self {
            Self::Jobs(jobs) => jobs,
            Self::Nothing { .. } => Vec::new(),
        }
    }
}

/// What a heartbeat says of one lease.
#[derive(Debug, Clone)]
pub struct Beat {
    /// The lease.
    pub fence: Fence,
    /// The step that runs.
    pub step: String,
    /// Time since the last output of the agent.
    pub silent: Duration,
}

/// The answer of the database to one lease in a heartbeat.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Renewed {
    /// The job.
    pub job_id: i64,
    /// The epoch that was renewed.
    pub epoch: i64,
    /// Somebody wants the job cancelled.
    pub cancel_requested: bool,
    /// Why, in words.
    pub cancel_reason: Option<String>,
}

/// The answer of the database to a heartbeat.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    /// The leases that are still held; those that are missing are lost.
    pub renewed: Vec<Renewed>,
    /// Some lease has run out: its worker may be dead.
    pub rescue_due: bool,
}

/// A job that was settled, and what the database made of it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Settled {
    /// The job.
    pub job_id: i64,
    /// The epoch that was current.
    pub epoch: i64,
    /// Where the job is now.
    pub state: JobState,
    /// How the attempt is recorded to have ended, a word of `awo.attempts.outcome`: what was asked for,
    /// unless a cancel came first or no attempt was left.
    pub outcome: String,
    /// The class recorded with it.
    pub class: Option<String>,
}

impl Settled {
    /// The fencing token that was current.
    pub fn fence(&self) -> Fence {
        Fence { job_id: self.job_id, epoch: self.epoch }
    }
}

/// A wait for something outside of the order, counted in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Until the next attempt.
    pub delay: Duration,
    /// For how long attempts go on since the first failure.
    pub patience: Duration,
    /// How much of the delay the failing side asked for, which `patience` does not count.
    pub asked: Duration,
}

/// How a run is recorded to have ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Settlement {
    /// Done. The class says so when there was nothing to deliver.
    Succeeded(Option<ErrorClass>),
    /// Never again by itself.
    Failed(ErrorClass, String),
    /// Again after the delay, while attempts are left.
    Retried(ErrorClass, String, Duration),
    /// Again after the wait, without spending an attempt, while there is patience left.
    WaitedOut(ErrorClass, String, Wait),
    /// Stopped by request.
    Cancelled(String),
    /// Given back unfinished, without spending an attempt.
    Interrupted(String),
    /// The same because it could not run, and left alone for the delay. The database counts it.
    PutBack(String, Duration),
}

impl Settlement {
    /// The word stored with it.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Succeeded(_) => "succeeded",
            Self::Failed(..) => "failed",
            Self::Retried(..) | Self::WaitedOut(..) => "retried",
            Self::Cancelled(_) => "cancelled",
            Self::Interrupted(_) | Self::PutBack(..) => "interrupted",
        }
    }

    /// The word for the database, which counts what is put back.
    fn asked(&self) -> &'static str {
        if matches!(self, Self::PutBack(..)) { "put_back" } else { self.outcome() }
    }

    /// The class stored with it.
    pub fn class(&self) -> Option<ErrorClass> {
        match self {
            Self::Succeeded(class) => *class,
            Self::Failed(class, _) | Self::Retried(class, ..) | Self::WaitedOut(class, ..) => {
                Some(*class)
            }
            Self::Cancelled(_) => Some(ErrorClass::Cancelled),
            Self::Interrupted(_) | Self::PutBack(..) => None,
        }
    }

    fn delay(&self) -> Duration {
        match self {
            Self::Retried(_, _, delay) | Self::PutBack(_, delay) => *delay,
            Self::WaitedOut(_, _, wait) => wait.delay,
            _ => Duration::ZERO,
        }
    }

    fn wait(&self) -> Option<&Wait> {
        if let Self::WaitedOut(_, _, wait) = self { Some(wait) } else { None }
    }

    fn message(&self) -> Option<&str> {
        match self {
            Self::Succeeded(_) => None,
            Self::Failed(_, message)
            | Self::Retried(_, message, _)
            | Self::WaitedOut(_, message, _)
            | Self::Cancelled(message)
            | Self::Interrupted(message)
            | Self::PutBack(message, _) => Some(message),
        }
    }
}

/// A job taken back from a dead worker.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Rescued {
    /// The job.
    pub job_id: i64,
    /// Its order.
    pub work_order_id: Option<String>,
    /// Where it is now.
    pub state: JobState,
    /// Who had it.
    pub worker_id: Uuid,
    /// Seconds since that worker last renewed the lease.
    pub silent_seconds: f64,
    /// What was known of it: `silent`, `draining`, `stopped`, `alive` or `unknown`.
    pub worker_was: String,
}

/// A lease that has run out, and when it was last renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Expired {
    /// The job.
    pub job_id: i64,
    /// The epoch of the lease.
    pub epoch: i64,
    /// The database's time of its last renewal.
    pub heartbeat_at: DateTime<Utc>,
}

impl Store {
    /// Introduces a worker.
    pub async fn register_worker(&self, worker: &WorkerRecord) -> Result<(), StoreError> {
        sqlx::query(sql!("queue/register_worker"))
            .bind(worker.worker_id)
            .bind(&worker.hostname)
            .bind(worker.pid)
            .bind(env!("CARGO_PKG_VERSION"))
            .bind(&worker.queues)
            .bind(worker.max_concurrent)
            .bind(&worker.kinds)
            .execute(self.pool())
            .await
            .map_err(StoreError::on("queue/register_worker"))?;
        Ok(())
    }

    /// Notes that a worker takes no new jobs.
    pub async fn drain_worker(&self, worker_id: Uuid) -> Result<(), StoreError> {
        sqlx::query(sql!("queue/drain_worker"))
            .bind(worker_id)
            .execute(self.pool())
            .await
            .map_err(StoreError::on("queue/drain_worker"))?;
        Ok(())
    }

    /// Notes why a worker that is alive claims no orders; `None`: it claims.
    pub async fn note_claims_nothing(
        &self,
        worker_id: Uuid,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        sqlx::query(sql!("queue/note_claims_nothing"))
            .bind(worker_id)
            .bind(reason)
            .execute(self.pool())
            .await
            .map_err(StoreError::on("queue/note_claims_nothing"))?;
        Ok(())
    }

    /// Notes that a worker has stopped.
    pub async fn retire_worker(&self, worker_id: Uuid) -> Result<(), StoreError> {
        sqlx::query(sql!("queue/retire_worker"))
            .bind(worker_id)
            .execute(self.pool())
            .await
            .map_err(StoreError::on("queue/retire_worker"))?;
        Ok(())
    }

    /// Leases up to `limit` jobs for `lease`. A job gains one step of priority for every
    /// `aging` it has waited; zero turns that off.
    #[tracing::instrument(name = "db.jobs.claim", level = "debug", skip_all, fields(limit), err)]
    pub async fn claim(
        &self,
        worker_id: Uuid,
        queues: &[String],
        limit: usize,
        lease: Duration,
        aging: Duration,
    ) -> Result<Claim, StoreError> {
        let claimed = sqlx::query(sql!("queue/claim"))
            .bind(worker_id)
            .bind(queues)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .bind(lease.as_secs_f64())
            .bind(aging.as_secs_f64())
            .fetch_all(self.pool());
        let rows = claimed.await.map_err(StoreError::on("queue/claim"))?;
        read_claim(&rows).map_err(StoreError::on("queue/claim"))
    }

    /// Gives back jobs of `queues` that were leased to this worker without its knowing, `held` being
    /// those it knows of. Answers how many.
    #[tracing::instrument(name = "db.jobs.give_back_unheld", skip_all, err)]
    pub async fn give_back_unheld(
        &self,
        worker_id: Uuid,
        queues: &[String],
        held: &[i64],
    ) -> Result<i64, StoreError> {
        sqlx::query_scalar(sql!("queue/give_back_unheld"))
            .bind(worker_id)
            .bind(held)
            .bind(queues)
            .fetch_one(self.pool())
            .await
            .map_err(StoreError::on("queue/give_back_unheld"))
    }

    /// Ends runs, in one transaction. What was asked under a stale fence changes nothing and is not
    /// in the answer.
    #[tracing::instrument(name = "db.jobs.settle", skip_all, fields(jobs = asked.len()), err)]
    pub async fn settle(&self, asked: &[(Fence, &Settlement)]) -> Result<Vec<Settled>, StoreError> {
        let column = |read: fn(&Settlement) -> Option<&str>| -> Vec<Option<&str>> {
            asked.iter().map(|(_, settlement)| read(settlement)).collect()
        };
        let jobs: Vec<i64> = asked.iter().map(|(fence, _)| fence.job_id).collect();
        let epochs: Vec<i64> = asked.iter().map(|(fence, _)| fence.epoch).collect();
        let delays: Vec<f64> = asked.iter().map(|(_, one)| one.delay().as_secs_f64()).collect();
        let seconds = |read: fn(&Wait) -> Duration| -> Vec<Option<f64>> {
            asked.iter().map(|(_, one)| one.wait().map(|wait| read(wait).as_secs_f64())).collect()
        };
        let settled = sqlx::query_as(sql!("queue/settle"))
            .bind(jobs)
            .bind(epochs)
            .bind(column(|one| Some(one.asked())))
            .bind(column(|one| one.class().map(ErrorClass::as_str)))
            .bind(column(Settlement::message))
            .bind(delays)
            .bind(seconds(|wait| wait.patience))
            .bind(seconds(|wait| wait.asked))
            .fetch_all(self.pool());
        settled.await.map_err(StoreError::on("queue/settle"))
    }

    /// The versions of the workers that are alive, with the number of workers that run each.
    pub async fn worker_versions(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let versions = sqlx::query_as(sql!("queue/versions")).fetch_all(self.pool());
        versions.await.map_err(StoreError::on("queue/versions"))
    }

    /// Leases that have run out, at most a thousand: the first of the two looks before a rescue.
    #[tracing::instrument(name = "db.leases.expired", level = "debug", skip_all, err)]
    pub async fn expired_leases(&self) -> Result<Vec<Expired>, StoreError> {
        let expired = sqlx::query_as(sql!("queue/expired")).fetch_all(self.pool());
        expired.await.map_err(StoreError::on("queue/expired"))
    }

    /// Takes back jobs whose leases were `seen` to have run out, were not renewed since, and ended
    /// more than `grace` ago; `lease` is the length of a lease.
    #[tracing::instrument(name = "db.jobs.rescue", level = "debug", skip_all, err)]
    pub async fn rescue(
        &self,
        seen: &[Expired],
        grace: Duration,
        lease: Duration,
    ) -> Result<Vec<Rescued>, StoreError> {
        let jobs: Vec<i64> = seen.iter().map(|lease| lease.job_id).collect();
        let epochs: Vec<i64> = seen.iter().map(|lease| lease.epoch).collect();
        let beats: Vec<DateTime<Utc>> = seen.iter().map(|lease| lease.heartbeat_at).collect();
        let rescued = sqlx::query_as(sql!("queue/rescue"))
            .bind(grace.as_secs_f64())
            .bind(lease.as_secs_f64())
            .bind(jobs)
            .bind(epochs)
            .bind(beats)
            .fetch_all(self.pool());
        rescued.await.map_err(StoreError::on("queue/rescue"))
    }
}

/// Jobs, or the one row that says when there will be some.
fn read_claim(rows: &[PgRow]) -> Result<Claim, sqlx::Error> {
    if let [row] = rows
        && row.try_get::<Option<i64>, _>("job_id")?.is_none()
    {
        let seconds: Option<f64> = row.try_get("due_seconds")?;
        let due = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
        return Ok(Claim::Nothing { due });
    }
    rows.iter().map(Claimed::from_row).collect::<Result<_, _>>().map(Claim::Jobs)
}

/// Sends one heartbeat for all leases of a worker, over the connection kept for that. `lease` is how
/// long they are renewed for.
pub async fn heartbeat<'c>(
    connection: impl PgExecutor<'c>,
    worker_id: Uuid,
    beats: &[Beat],
    lease: Duration,
) -> Result<Pulse, StoreError> {
    let jobs: Vec<i64> = beats.iter().map(|beat| beat.fence.job_id).collect();
    let epochs: Vec<i64> = beats.iter().map(|beat| beat.fence.epoch).collect();
    let steps: Vec<&str> = beats.iter().map(|beat| beat.step.as_str()).collect();
    let silent: Vec<f64> = beats.iter().map(|beat| beat.silent.as_secs_f64()).collect();
    let rows = sqlx::query(sql!("queue/heartbeat"))
        .bind(worker_id)
        .bind(jobs)
        .bind(epochs)
        .bind(steps)
        .bind(silent)
        .bind(lease.as_secs_f64())
        .fetch_all(connection)
        .await
        .map_err(StoreError::on("queue/heartbeat"))?;
    read_pulse(&rows).map_err(StoreError::on("queue/heartbeat"))
}

fn read_pulse(rows: &[PgRow]) -> Result<Pulse, sqlx::Error> {
    let mut pulse = Pulse::default();
    for row in rows {
        pulse.rescue_due = row.try_get("rescue_due")?;
        if row.try_get::<Option<i64>, _>("job_id")?.is_some() {
            pulse.renewed.push(Renewed::from_row(row)?);
        }
    }
    Ok(pulse)
}

/// Channels a worker listens on: a queue got a job, a running job is to be cancelled, a schedule changed.
pub const CHANNELS: [&str; 3] = ["awo_jobs", "awo_cancel", "awo_schedules"];

/// Whether this connection still receives notifications.
pub async fn is_listening<'c>(connection: impl PgExecutor<'c>) -> Result<bool, StoreError> {
    sqlx::query_scalar(sql!("queue/listening"))
        .fetch_one(connection)
        .await
        .map_err(StoreError::on("queue/listening"))
}
