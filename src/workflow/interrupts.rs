//! Ends what a run waits for when the run is to stop: git, a lock, an upload, the forge, the database.
//!
//! There is one place for it, so that no wait can be forgotten: a step is dropped as a whole. What must
//! not be dropped says so with a [`Guard`]: an agent, which its supervisor ends in order.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::failure::StepError;
use crate::{
    clock::Clock,
    lease::{Lease, StopReason},
};

/// How long a run that is to stop may take in all for what should be recorded, and is no promise ...
const LAST_WORDS: Duration = Duration::from_secs(4);
/// ... and for each single part of it at least: what comes first must not cost the others everything.
const LAST_WORD: Duration = Duration::from_millis(500);

/// What one run listens to. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Interrupts {
    lease: Lease,
    clock: Clock,
    guards: watch::Sender<usize>,
    spent: Arc<Mutex<Duration>>,
}

/// While it lives, the run is not dropped.
#[derive(Debug)]
pub(super) struct Guard(watch::Sender<usize>);

impl Interrupts {
    /// Those of the run under `lease`.
    pub(super) fn of(lease: &Lease, clock: &Clock) -> Self {
        let (lease, clock) = (lease.clone(), clock.clone());
        Self { lease, clock, guards: watch::Sender::default(), spent: Arc::default() }
    }

    /// The same with time of its own for last words: one table that is locked must not cost the others
    /// theirs.
    pub(super) fn apart(&self) -> Self {
        Self { spent: Arc::default(), ..self.clone() }
    }

    /// Does `work`, or drops it at once when the run is to be abandoned: cancelled, out of its lease or
    /// of the time for a drain.
    pub(super) async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, StepError>>,
    ) -> Result<T, StepError> {
        tokio::select! {
            biased;
            done = work => done,
            reason = self.stopped() => Err(StepError::Stopped(reason)),
        }
    }

    /// Does `work` to its end. In a run that is to be abandoned only for a few seconds, which all such
    /// work shares; answers `None` when they were not enough.
    pub(super) async fn briefly<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut heard = None;
        let out_of_time = async {
            self.lease.aborted().await;
            heard = Some(self.clock.now());
            let left = LAST_WORDS.saturating_sub(*self.spent());
            self.clock.sleep(left.max(LAST_WORD)).await;
        };
        let done = tokio::select! {
            biased;
            done = work => Some(done),
            () = out_of_time => None,
        };
        if let Some(heard) = heard {
            *self.spent() += self.clock.now() - heard;
        }
        done
    }

    fn spent(&self) -> std::sync::MutexGuard<'_, Duration> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the run from being dropped, for what ends by itself when it is told to.
    pub(super) fn guard(&self) -> Guard {
        self.guards.send_modify(|guards| *guards += 1);
        Guard(self.guards.clone())
    }

    async fn stopped(&self) -> StopReason {
        let reason = self.lease.aborted().await;
        // It cannot fail: we have a sender ourselves.
        let _ = self.guards.subscribe().wait_for(|guards| *guards == 0).await;
        reason
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.send_modify(|guards| *guards -= 1);
    }
}
