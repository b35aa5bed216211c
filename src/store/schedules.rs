//! Schedules: which there are, firing one, and what is wrong with one. The rules are in `sql/schedule/`.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::{Store, StoreError};
use crate::{domain::MissedFires, sql};

/// A schedule that is not paused.
#[derive(Debug, Clone, FromRow)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// Its cron expression, as it was written.
    pub expression: String,
    /// The zone in which that is read.
    pub time_zone: String,
    missed_fires: String,
    catch_up_limit: i16,
    /// What was wrong with it when somebody last tried.
    pub last_error: Option<String>,
    /// Everything up to here is settled: its creation, its last change or its last fire.
    pub after: DateTime<Utc>,
    /// The database's time when it was read.
    pub now: DateTime<Utc>,
}

impl Schedule {
    /// What it does about times nobody was there for.
    pub fn missed_fires(&self) -> MissedFires {
        MissedFires::from_columns(&self.missed_fires, self.catch_up_limit)
    }
}

/// A time at which a schedule was fired by this caller.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Fired {
    /// The time of the schedule.
    pub fire_at: DateTime<Utc>,
    /// The job; `None` when the one before is still open and the schedule waits for that.
    pub job_id: Option<i64>,
}

impl Store {
    /// Every schedule that may fire.
    #[tracing::instrument(name = "db.schedules.read", level = "debug", skip_all, err)]
    pub async fn active_schedules(&self) -> Result<Vec<Schedule>, StoreError> {
        let read = sqlx::query_as(sql!("schedule/active")).fetch_all(self.pool());
        read.await.map_err(StoreError::on("schedule/active"))
    }

    /// Fires `schedule` at `times`, oldest first. Those that another replica fired, or that the row
    /// no longer stands for, are not in the answer.
    #[tracing::instrument(name = "db.schedules.fire", level = "debug", skip_all, fields(schedule.name = schedule.name), err)]
    pub async fn fire_schedule(
        &self,
        schedule: &Schedule,
        times: &[DateTime<Utc>],
    ) -> Result<Vec<Fired>, StoreError> {
        let fired = sqlx::query_as(sql!("schedule/fire"))
            .bind(&schedule.name)
            .bind(times)
            .bind(&schedule.expression)
            .bind(&schedule.time_zone)
            .fetch_all(self.pool());
        fired.await.map_err(StoreError::on("schedule/fire"))
    }

    /// Notes why `schedule` cannot fire, for people who look at its row.
    #[tracing::instrument(name = "db.schedules.complain", level = "debug", skip_all, err)]
    pub async fn complain_about_schedule(
        &self,
        schedule: &Schedule,
        sentence: &str,
    ) -> Result<(), StoreError> {
        let noted = sqlx::query(sql!("schedule/complain"))
            .bind(&schedule.name)
            .bind(sentence)
            .bind(&schedule.expression)
            .bind(&schedule.time_zone)
            .execute(self.pool());
        noted.await.map(drop).map_err(StoreError::on("schedule/complain"))
    }
}
