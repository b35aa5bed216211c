//! Keeps leases alive, and stops work whose lease may be gone before anybody else can get it.
//!
//! One task with a thread, a runtime and a connection of its own beats for all leases of the process. It is
//! the only place that decides whether a lease is held; agents and steps only watch its signal.

mod pulse;

pub use pulse::Pulse;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    agent::LeaseSignal,
    clock::Clock,
    config::QueueConfig,
    domain::StepName,
    store::{self, Beat, Dial, Fence, Line, Renewed, StoreError},
    telemetry::Metrics,
};

/// Longest time one beat may take, connecting included: a lost packet must not hide the loss of the
/// database for longer than that.
const BEAT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a run must stop before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The lease is lost: another owner may be at work.
    LeaseLost,
    /// Somebody asked for it.
    Cancelled,
    /// The worker is shutting down.
    Draining,
}

#[derive(Debug)]
struct Progress {
    step: &'static str,
    output_at: Instant,
}

struct Held {
    /// When the last acknowledged beat was sent, on the boot clock.
    acknowledged: Duration,
    signal: watch::Sender<LeaseSignal>,
    lost: CancellationToken,
    cancel: CancellationToken,
    cancel_reason: Arc<Mutex<Option<String>>>,
    progress: Arc<Mutex<Progress>>,
}

/// A lease as its run sees it.
#[derive(Debug, Clone)]
pub struct Lease {
    fence: Fence,
    signal: watch::Receiver<LeaseSignal>,
    lost: CancellationToken,
    cancel: CancellationToken,
    cancel_reason: Arc<Mutex<Option<String>>>,
    progress: Arc<Mutex<Progress>>,
    drain: CancellationToken,
    interrupt: CancellationToken,
    clock: Clock,
}

impl Lease {
    /// The token every write of the run carries.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// What the supervisor of an agent watches.
    pub fn signal(&self) -> watch::Receiver<LeaseSignal> {
        self.signal.clone()
    }

    /// Whether the lease is known to be lost.
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Whether the last acknowledged heartbeat is fresh enough to act on the outside world.
    pub fn is_fresh(&self) -> bool {
        matches!(*self.signal.borrow(), LeaseSignal::Held { until } if self.clock.boot_time() < until)
    }

    /// Why the run should stop at the next step boundary, if it should.
    pub fn stop_reason(&self) -> Option<StopReason> {
        if self.is_lost() {
            Some(StopReason::LeaseLost)
        } else if self.cancel.is_cancelled() {
            Some(StopReason::Cancelled)
        } else if self.drain.is_cancelled() {
            Some(StopReason::Draining)
        } else {
            None
        }
    }

    /// A token that is cancelled when a running agent should be interrupted: by a request to cancel,
    /// or when a drain has waited long enough. A lost lease reaches the agent by [`Self::signal`].
    pub fn interrupt_token(&self) -> CancellationToken {
        let token = CancellationToken::new();
        let (cancel, interrupt, set) = (self.cancel.clone(), self.interrupt.clone(), token.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => set.cancel(),
                () = interrupt.cancelled() => set.cancel(),
                () = set.cancelled() => {}
            }
        });
        token
    }

    /// Cancelled when this worker has heard that the job is to be cancelled.
    pub fn cancel_token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Cancelled when the lease is lost.
    pub fn lost_token(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Waits until the run should be abandoned at once: lost, cancelled, or out of drain time.
    pub async fn aborted(&self) -> StopReason {
        tokio::select! {
            () = self.lost.cancelled() => StopReason::LeaseLost,
            () = self.cancel.cancelled() => StopReason::Cancelled,
            () = self.interrupt.cancelled() => StopReason::Draining,
        }
    }

    /// Waits until the time for a drain is over.
    pub async fn drained(&self) {
        self.interrupt.cancelled().await;
    }

    /// Waits until the run should stop as soon as it can: lost, cancelled, or the worker drains.
    pub async fn stopped(&self) -> StopReason {
        tokio::select! {
            () = self.lost.cancelled() => StopReason::LeaseLost,
            () = self.cancel.cancelled() => StopReason::Cancelled,
            () = self.drain.cancelled() => StopReason::Draining,
        }
    }

    /// Why the job is to be cancelled, in words.
    pub fn cancel_reason(&self) -> String {
        let reason = self.cancel_reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        reason.unwrap_or_else(|| "Cancelled by request".to_owned())
    }

    /// Notes which step runs.
    pub fn enter_step(&self, step: StepName) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.step = step.as_str();
        progress.output_at = self.clock.now();
    }

    /// Notes that the agent wrote something.
    pub fn note_output(&self) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.output_at = self.clock.now();
    }
}

/// Beats for all leases of this process.
pub struct LeaseKeeper {
    worker_id: Uuid,
    timings: QueueConfig,
    clock: Clock,
    database: Dial,
    drain: CancellationToken,
    interrupt: CancellationToken,
    held: Mutex<HashMap<Fence, Held>>,
    beat_now: Notify,
    rescue_due: Notify,
    pulse: watch::Sender<Pulse>,
    metrics: Metrics,
}

impl LeaseKeeper {
    /// A keeper for the worker `worker_id`. `drain` tells runs to stop at the next step, and
    /// `interrupt` to stop at once.
    pub fn new(
        worker_id: Uuid,
        timings: QueueConfig,
        clock: Clock,
        database: impl Into<Dial>,
        drain: CancellationToken,
        interrupt: CancellationToken,
        metrics: Metrics,
    ) -> Arc<Self> {
        let (pulse, _) = watch::channel(Pulse::default());
        Arc::new(Self {
            worker_id,
            timings,
            clock,
            database: database.into(),
            drain,
            interrupt,
            held: Mutex::default(),
            beat_now: Notify::new(),
            rescue_due: Notify::new(),
            pulse,
            metrics,
        })
    }

    /// Takes over a lease whose claim was sent at `sent`, a reading of [`Clock::boot_time`].
    pub fn hold(&self, fence: Fence, sent: Duration) -> Lease {
        let until = sent + self.timings.self_fence;
        let (signal, watching) = watch::channel(LeaseSignal::Held { until });
        let progress = Progress { step: "", output_at: self.clock.now() };
        let held = Held {
            acknowledged: sent,
            signal,
            lost: CancellationToken::new(),
            cancel: CancellationToken::new(),
            cancel_reason: Arc::default(),
            progress: Arc::new(Mutex::new(progress)),
        };
        let lease = Lease {
            fence,
            signal: watching,
            lost: held.lost.clone(),
            cancel: held.cancel.clone(),
            cancel_reason: Arc::clone(&held.cancel_reason),
            progress: Arc::clone(&held.progress),
            drain: self.drain.clone(),
            interrupt: self.interrupt.clone(),
            clock: self.clock.clone(),
        };
        self.lock().insert(fence, held);
        lease
    }

    /// Stops beating for a lease that was settled.
    pub fn release(&self, fence: Fence) {
        self.lock().remove(&fence);
    }

    /// The jobs whose leases are held.
    pub fn held_jobs(&self) -> Vec<i64> {
        self.lock().keys().map(|fence| fence.job_id).collect()
    }

    /// How many leases are held.
    pub fn held(&self) -> usize {
        self.lock().len()
    }

    /// Beats at once, to hear of a cancel request early.
    pub fn beat_now(&self) {
        self.beat_now.notify_one();
    }

    /// Has the rescue look for dead workers though no heartbeat has shown one.
    pub fn rescue_now(&self) {
        self.rescue_due.notify_one();
    }

    /// Waits until a heartbeat shows that some lease ran out.
    pub async fn rescue_due(&self) {
        self.rescue_due.notified().await;
    }

    /// When heartbeats last worked.
    pub fn pulse(&self) -> watch::Receiver<Pulse> {
        self.pulse.subscribe()
    }

    /// Why nothing may be claimed now, as a sentence.
    pub fn problem(&self) -> Option<String> {
        self.pulse.borrow().problem(self.clock.now(), self.timings.heartbeat)
    }

    /// Waits until a claimed lease would be renewed. A worker whose heartbeats fail would lose every
    /// order it claims, and spend its crash budget.
    pub async fn admits(&self) {
        let mut pulse = self.pulse.subscribe();
        loop {
            pulse.borrow_and_update();
            // The keeper itself sends, so this never ends by an error.
            if self.problem().is_none() || pulse.changed().await.is_err() {
                return;
            }
        }
    }

    /// Beats until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut connection = None;
        let mut wait = Duration::ZERO;
        let mut last = self.clock.boot_time();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.beat_now.notified() => {}
                () = self.clock.sleep(wait) => {}
            }
            let (sent, sent_boot) = (self.clock.now(), self.clock.boot_time());
            if sent_boot.saturating_sub(last) > self.longest_gap() {
                // The process or its machine stood still. What it held may be lost, and its
                // neighbours may have stood still as well: theirs only looks dead.
                let words = format!("no time to beat for {:?}", sent_boot.saturating_sub(last));
                warn!("{words}");
                self.suspend_silent();
                self.failed(sent, words.into());
            }
            last = sent_boot;
            let beats = self.beats(sent);
            match self.beat(&mut connection, &beats).await {
                Ok(answer) => {
                    self.apply(&beats, &answer.renewed, sent_boot);
                    self.pulse.send_modify(|pulse| pulse.acknowledged = Some(sent));
                    if answer.rescue_due {
                        self.rescue_due.notify_one();
                    }
                    wait = self.timings.heartbeat;
                }
                Err(error) => {
                    warn!("heartbeat failed, trying again: {error}");
                    connection = None;
                    self.metrics.heartbeat_failed();
                    self.failed(sent, error.to_string().into());
                    wait = self.timings.heartbeat.min(Duration::from_secs(1));
                }
            }
            self.suspend_silent();
        }
    }

    async fn beat(
        &self,
        connection: &mut Option<Line>,
        beats: &[Beat],
    ) -> Result<store::Pulse, StoreError> {
        let work = async {
            let mut borrowed;
            let line = match connection {
                Some(line) => line,
                None => match self.connect().await {
                    Ok(line) => connection.insert(line),
                    Err(error) => {
                        borrowed = self.borrow(error).await?;
                        &mut borrowed
                    }
                },
            };
            store::heartbeat(line, self.worker_id, beats, self.timings.lease).await
        };
        let late = StoreError { statement: "queue/heartbeat", source: sqlx::Error::PoolTimedOut };
        timeout(self.beat_limit(), work).await.unwrap_or(Err(late))
    }

    async fn connect(&self) -> Result<Line, sqlx::Error> {
        let late = |_| Err(sqlx::Error::PoolTimedOut);
        timeout(self.beat_limit() / 2, self.database.connect()).await.unwrap_or_else(late)
    }

    /// A connection of the pool for one beat, where the server refuses one more: too many are open, or
    /// the role may not have more. Leases are not given up while others of this process can be used.
    async fn borrow(&self, refused: sqlx::Error) -> Result<Line, StoreError> {
        let found = timeout(self.beat_limit() / 3, self.database.borrow()).await.ok().flatten();
        if found.is_some() {
            warn!(
                "heartbeats cannot have a connection of their own, using one of the pool: {refused}"
            );
        }
        found.ok_or(StoreError { statement: "queue/heartbeat", source: refused })
    }

    fn failed(&self, sent: Instant, reason: Arc<str>) {
        self.pulse.send_modify(|pulse| {
            pulse.failed = Some(sent);
            pulse.reason = Some(reason);
        });
    }

    /// Two tries must fit before the self-fence; a shorter limit than needed to connect on a busy
    /// host would lose leases for nothing.
    fn beat_limit(&self) -> Duration {
        BEAT_TIMEOUT.min(self.timings.self_fence / 2)
    }

    /// The time between two beats that a busy host may need; more means that it stood still.
    fn longest_gap(&self) -> Duration {
        self.timings.heartbeat * 2 + self.beat_limit()
    }

    fn beats(&self, now: Instant) -> Vec<Beat> {
        let beat = |(fence, held): (&Fence, &Held)| {
            let progress = held.progress.lock().unwrap_or_else(PoisonError::into_inner);
            Beat {
                fence: *fence,
                step: progress.step.to_owned(),
                silent: now.saturating_duration_since(progress.output_at),
            }
        };
        self.lock().iter().map(beat).collect()
    }

    /// Leases that were in the beat and not in the answer are lost; the others hold for longer.
    fn apply(&self, beats: &[Beat], renewed: &[Renewed], sent: Duration) {
        let mut held = self.lock();
        for Beat { fence, .. } in beats {
            let Some(lease) = held.get_mut(fence) else { continue };
            let answer =
                renewed.iter().find(|row| row.job_id == fence.job_id && row.epoch == fence.epoch);
            let Some(answer) = answer else {
                warn!(job.id = fence.job_id, epoch = fence.epoch, "lease lost");
                lease.signal.send_replace(LeaseSignal::Lost);
                lease.lost.cancel();
                continue;
            };
            lease.acknowledged = sent;
            let until = sent + self.timings.self_fence;
            if matches!(*lease.signal.borrow(), LeaseSignal::Suspended) {
                info!(job.id = fence.job_id, "lease still ours, going on");
            }
            lease.signal.send_replace(LeaseSignal::Held { until });
            if answer.cancel_requested && !lease.cancel.is_cancelled() {
                let mut reason = lease.cancel_reason.lock().unwrap_or_else(PoisonError::into_inner);
                reason.clone_from(&answer.cancel_reason);
                lease.cancel.cancel();
            }
        }
    }

    /// Freezes what could not be renewed for too long. The shim of each agent does the same by
    /// itself at the deadline, also when this process is stopped.
    fn suspend_silent(&self) {
        let now = self.clock.boot_time();
        for (fence, lease) in self.lock().iter() {
            let due = now >= lease.acknowledged + self.timings.self_fence;
            if due && matches!(*lease.signal.borrow(), LeaseSignal::Held { .. }) {
                warn!(job.id = fence.job_id, "no heartbeat acknowledged, suspending");
                self.metrics.self_fenced();
                lease.signal.send_replace(LeaseSignal::Suspended);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Fence, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
