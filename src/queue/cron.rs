//! Fires schedules. Every replica does so, and none leads: the statement decides whose fire counts.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::wake::{Pace, Wake};
use crate::{
    clock::Clock,
    domain::{Cron, CronError},
    store::{Schedule, Store, StoreError},
};

/// How often the schedules are read when none is due. A change of one is notified; without proof that
/// notifications arrive, nobody waits longer than the shorter of these for a new one.
const PACE: Pace = Pace {
    min: Duration::from_secs(10),
    max: Duration::from_secs(15),
    idle: Duration::from_mins(1),
};
/// Longest wait between the time of a schedule and the look at it: replicas that wait longer find it
/// fired and save themselves the statement.
const SPREAD: Duration = Duration::from_millis(250);

/// The schedules as one replica sees them.
#[derive(Debug)]
pub struct Schedules {
    store: Store,
    clock: Clock,
    /// Woken when a schedule changed.
    pub(super) wake: Arc<Wake>,
}

impl Schedules {
    /// Nothing is read yet.
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock, wake: Arc::new(Wake::new(Vec::new())) }
    }

    /// Fires what is due, whenever it is, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let due = match self.look().await {
                Ok(due) => due,
                Err(error) => {
                    warn!("cannot read the schedules: {error}");
                    None
                }
            };
            let due = due.map(|due| due + self.clock.between(Duration::ZERO, SPREAD));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.wait(&self.clock, &PACE, due) => {}
            }
        }
    }

    /// Fires what is due now; answers how long it is until the next fire, if there is one.
    pub async fn look(&self) -> Result<Option<Duration>, StoreError> {
        let mut next: Option<Duration> = None;
        for schedule in self.store.active_schedules().await? {
            let due = match self.fire(&schedule).await {
                Ok(due) => due,
                Err(NotFired::Cron(error)) => {
                    self.complain(&schedule, &error.to_string()).await?;
                    continue;
                }
                // A rule of ours refused the job. It is tried again at the pace of idle looks.
                Err(NotFired::Store(error)) => match error.refusal() {
                    Some(sentence) => {
                        self.complain(&schedule, sentence).await?;
                        continue;
                    }
                    None => return Err(error),
                },
            };
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        Ok(next)
    }

    /// Fires one schedule when it is due; answers the time until its next fire.
    async fn fire(&self, schedule: &Schedule) -> Result<Duration, NotFired> {
        let cron = Cron::parse(&schedule.expression, &schedule.time_zone)?;
        let times = schedule.missed_fires().due(&cron, schedule.after, schedule.now)?;
        if !times.is_empty() {
            for fired in self.store.fire_schedule(schedule, &times).await? {
                let Some(job) = fired.job_id else {
                    debug!(schedule.name = schedule.name, "its last job is still open");
                    continue;
                };
                let at = fired.fire_at.to_rfc3339();
                info!(schedule.name = schedule.name, job.id = job, fire_at = at, "schedule fired");
            }
        }
        let next = cron.next(schedule.now)?;
        Ok((next - schedule.now).to_std().unwrap_or_default())
    }

    async fn complain(&self, schedule: &Schedule, sentence: &str) -> Result<(), StoreError> {
        if schedule.last_error.as_deref() == Some(sentence) {
            return Ok(());
        }
        warn!(schedule.name = schedule.name, "schedule cannot fire: {sentence}");
        self.store.complain_about_schedule(schedule, sentence).await
    }
}

/// Why a schedule was not fired.
enum NotFired {
    Cron(CronError),
    Store(StoreError),
}

impl From<CronError> for NotFired {
    fn from(error: CronError) -> Self {
        Self::Cron(error)
    }
}

impl From<StoreError> for NotFired {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
