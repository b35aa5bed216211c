//! Claims jobs for the free slots of a lane, as many as there are in one statement and none ahead of
//! a free slot.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tracing::warn;

use super::{
    engine::{Engine, Handler},
    wake::{Pace, Wake},
};
use crate::{
    lease::{Lease, LeaseKeeper},
    maintenance::DiskWatch,
    store::{Claim, Claimed, Settlement},
};

/// Most jobs in one claim. A wide lane is filled by several, so that one half of it is claimed while the
/// other is settled.
const BATCH: usize = 32;

/// How long a claim whose answer was lost may still be at work on the server: its limit there
/// (`sql/connect/limit_session.sql`), and some more.
const LATE_CLAIM: Duration = Duration::from_secs(35);
/// How often it is looked for meanwhile.
const LOOK_FOR_LATE: Duration = Duration::from_secs(2);

/// Some queues, and how many of their jobs this process runs at once. A worker has one lane for
/// orders and one for maintenance, so that hour-long orders never keep it from cleaning up.
pub struct Lane {
    /// The queues.
    pub queues: Vec<String>,
    /// How many jobs at once.
    pub slots: usize,
    /// How often it looks for jobs by itself.
    pub pace: Pace,
    /// What is done with a job.
    pub handler: Handler,
    /// Holds claims back while a volume has too little room.
    pub gate: Option<Arc<DiskWatch>>,
}

/// The lease of a claimed job and the slot it fills. When this is dropped, in whatever way, the slot
/// is free again and nobody renews the lease any more.
pub struct Slot {
    /// The lease.
    pub lease: Lease,
    keeper: Arc<LeaseKeeper>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.keeper.release(self.lease.fence());
    }
}

/// Jobs with the slots they fill.
pub type Claims = Vec<(Claimed, Arc<Slot>)>;

/// Claims for one lane.
pub struct Claimer {
    /// What the lanes share.
    pub engine: Arc<Engine>,
    /// The lane.
    pub lane: Lane,
    /// Says when to look.
    pub wake: Arc<Wake>,
    slots: Arc<Semaphore>,
    /// Set when a claim failed, to when it is over on the server too: its answer may have been lost, not
    /// the claim.
    unsure: Mutex<Option<Instant>>,
}

impl Claimer {
    /// A claimer that has claimed nothing.
    pub fn new(engine: Arc<Engine>, lane: Lane) -> Arc<Self> {
        let slots = Arc::new(Semaphore::new(lane.slots));
        let wake = Arc::new(Wake::new(lane.queues.clone()));
        Arc::new(Self { engine, lane, wake, slots, unsure: Mutex::default() })
    }

    /// Waits until jobs are claimed. Empty when the worker drains.
    pub async fn next(self: Arc<Self>) -> Claims {
        let Engine { store, clock, timings, .. } = &*self.engine;
        let mut failures: u32 = 0;
        loop {
            let Some(first) = self.free_slot().await else { return Vec::new() };
            self.give_back_unheld().await;
            if !self.admitted().await {
                return Vec::new();
            }
            self.give_back_unheld().await;
            let permits = self.gather(first).await;
            let (sent, sent_boot) = (clock.now(), clock.boot_time());
            let claimed = store
                .claim(
                    self.engine.worker_id,
                    &self.lane.queues,
                    permits.len(),
                    timings.lease,
                    timings.priority_aging,
                )
                .await;
            match claimed {
                Ok(Claim::Jobs(jobs)) => {
                    self.engine.metrics.claimed(clock.now() - sent);
                    let leased = jobs.into_iter().zip(permits).map(|(job, permit)| {
                        let keeper = Arc::clone(&self.engine.keeper);
                        let lease = keeper.hold(job.fence(), sent_boot);
                        (job, Arc::new(Slot { lease, keeper, _permit: permit }))
                    });
                    let leased: Claims = leased.collect();
                    let Some(problem) = self.engine.keeper.problem() else { return leased };
                    // Heartbeats began to fail while the claim was on its way.
                    warn!(jobs = leased.len(), "giving back what was just claimed: {problem}");
                    self.give_back(leased).await;
                }
                Ok(Claim::Nothing { due }) => {
                    failures = 0;
                    drop(permits);
                    tokio::select! {
                        () = self.engine.drain.cancelled() => {}
                        () = self.wake.wait(clock, &self.lane.pace, due) => {}
                        () = clock.sleep(LOOK_FOR_LATE), if self.unsure_until().is_some() => {}
                    }
                }
                Err(error) => {
                    drop(permits);
                    failures += 1;
                    self.unsure(Some(clock.now() + LATE_CLAIM));
                    warn!("cannot claim jobs: {error}");
                    let ceiling = Duration::from_millis(250) * 2_u32.pow(failures.min(5));
                    let wait = clock.between(ceiling / 2, ceiling);
                    tokio::select! {
                        () = self.engine.drain.cancelled() => {}
                        () = clock.sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// Gives back what was claimed and never started.
    pub async fn give_back(&self, claims: impl IntoIterator<Item = (Claimed, Arc<Slot>)>) {
        let unused = Settlement::Interrupted("the worker stopped before it began".to_owned());
        let slots: Vec<_> = claims.into_iter().map(|(_, slot)| slot).collect();
        join_all(slots.iter().map(|slot| self.engine.settle(&slot.lease, &unused))).await;
        drop(slots);
        self.give_back_unheld().await;
    }

    /// After a claim without an answer: gives back what it may have leased, which nobody would run
    /// until its lease ends. The server may be at it still, so this is done until it must have ended.
    async fn give_back_unheld(&self) {
        let Some(until) = self.unsure_until() else { return };
        let Engine { worker_id, store, keeper, clock, .. } = &*self.engine;
        let (held, looked) = (keeper.held_jobs(), clock.now());
        match store.give_back_unheld(*worker_id, &self.lane.queues, &held).await {
            Ok(jobs) => {
                if jobs > 0 {
                    warn!(jobs, "gave back jobs whose claim was not answered");
                }
                if looked >= until {
                    self.unsure(None);
                }
            }
            Err(error) => warn!("cannot look for jobs whose claim was not answered: {error}"),
        }
    }

    fn unsure_until(&self) -> Option<Instant> {
        *self.unsure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsure(&self, until: Option<Instant>) {
        *self.unsure.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// All free slots, up to a batch. Runs that ended together free theirs one after the other: as long as more
    /// become free, the claim waits for them, once around the runtime's queue each time.
    async fn gather(&self, first: OwnedSemaphorePermit) -> Vec<OwnedSemaphorePermit> {
        let mut permits = vec![first];
        loop {
            let before = permits.len();
            tokio::task::yield_now().await;
            while permits.len() < BATCH
                && let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned()
            {
                permits.push(permit);
            }
            if permits.len() == before || permits.len() == BATCH {
                return permits;
            }
        }
    }

    /// Waits until the gate of the lane is open and a lease would be renewed; `false` when the worker
    /// drains before that.
    async fn admitted(&self) -> bool {
        let open = async {
            if let Some(gate) = &self.lane.gate {
                gate.admits().await;
            }
            self.engine.keeper.admits().await;
        };
        tokio::select! {
            biased;
            () = self.engine.drain.cancelled() => false,
            () = open => true,
        }
    }

    async fn free_slot(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            () = self.engine.drain.cancelled() => None,
            permit = Arc::clone(&self.slots).acquire_owned() => permit.ok(),
        }
    }
}
