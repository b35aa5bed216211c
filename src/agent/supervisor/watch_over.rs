//! The loop that watches a run: lease, clock, silence, cancellation and the shim's own words.

use std::{future::pending, path::PathBuf, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Supervisor, shim_process::ShimProcess};
use crate::{
    agent::{
        isolation::Isolation,
        lifeline::{Order, Status, nanos},
        pump::{Progress, Stage},
        report::{Exit, Failure},
        request::{AgentRequest, LeaseSignal},
        verdict::Intervention,
    },
    clock::Clock,
    disk,
    domain::ErrorClass,
};

/// How much longer than its kill plan a shim may take to empty the tree before it is killed too.
const SHIM_PATIENCE: Duration = Duration::from_secs(4);
/// How long a shim that has said its last word may take to end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What is known when the shim has ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// How the agent's own process ended.
    pub exit: Option<Exit>,
    /// What we did to it.
    pub intervention: Option<Intervention>,
    /// How long the tree took to become empty.
    pub tree_empty_after: Option<Duration>,
    /// Why the agent was not started at all.
    pub problem: Option<Failure>,
    /// How far it was shut in, once it was started.
    pub isolation: Option<Isolation>,
    /// Whether the kernel killed a process of it for memory; `None` where that is not known.
    pub out_of_memory: Option<bool>,
}

/// One run being watched.
pub struct WatchOver {
    clock: Clock,
    hard_timeout: Duration,
    idle_timeout: Duration,
    exit_grace: Duration,
    patience: Duration,
    lock_wait: Duration,
    /// What the shim locks.
    lock: PathBuf,
    /// Shared with the pump, which fills it; set here when a thaw restarts the silence.
    progress: watch::Sender<Progress>,
    reached: watch::Sender<Option<Isolation>>,
    lease: watch::Receiver<LeaseSignal>,
    lease_is_open: bool,
    started: Option<Instant>,
    frozen_since: Option<Instant>,
    /// Time spent frozen, which does not count.
    frozen_for: Duration,
    /// We told the shim to freeze, so only we may thaw.
    suspended: bool,
    /// When the agent ended or was told to.
    end_began: Option<Instant>,
    shim_was_killed: bool,
    ended: Ended,
}

impl WatchOver {
    /// Watches a run that begins now.
    pub fn new(
        supervisor: &Supervisor,
        request: &AgentRequest,
        progress: watch::Sender<Progress>,
        lease: watch::Receiver<LeaseSignal>,
    ) -> Self {
        let plan = supervisor.kill_plan;
        Self {
            clock: supervisor.clock.clone(),
            hard_timeout: request.hard_timeout,
            idle_timeout: request.idle_timeout,
            exit_grace: supervisor.limits.exit_grace,
            patience: plan.interrupt + plan.terminate + SHIM_PATIENCE,
            lock_wait: supervisor.limits.lock_wait,
            lock: request.sandbox_root.join(".lock"),
            progress,
            reached: supervisor.reached.clone(),
            lease,
            lease_is_open: true,
            started: None,
            frozen_since: None,
            frozen_for: Duration::ZERO,
            suspended: false,
            end_began: None,
            shim_was_killed: false,
            ended: Ended::default(),
        }
    }

    /// Runs until the shim has ended.
    pub async fn until_the_end(
        mut self,
        shim: &mut ShimProcess,
        cancel: &CancellationToken,
    ) -> Ended {
        self.tell_lease(shim);
        let mut progress = self.progress.subscribe();
        loop {
            let due = self.next_due();
            tokio::select! {
                status = shim.status() => match status {
                    Some(status) => self.hear(shim, status),
                    // Nobody but the shim can speak on that pipe, so the shim is gone.
                    None => break,
                },
                changed = self.lease.changed(), if self.lease_is_open => {
                    self.lease_is_open = changed.is_ok();
                    self.tell_lease(shim);
                }
                () = cancel.cancelled(), if self.end_began.is_none() => {
                    self.end(shim, Intervention::Cancelled, Order::Interrupt);
                }
                _ = progress.changed() => {}
                () = sleep_until(due) => {}
            }
            self.keep_time(shim);
        }
        if timeout(LAST_WORDS, shim.wait()).await.is_err() {
            shim.kill();
        }
        self.ended
    }

    /// Passes the lease on to the shim.
    fn tell_lease(&mut self, shim: &ShimProcess) {
        let signal = *self.lease.borrow_and_update();
        match signal {
            _ if !self.lease_is_open => self.end(shim, Intervention::LeaseLost, Order::Kill),
            LeaseSignal::Lost => self.end(shim, Intervention::LeaseLost, Order::Kill),
            LeaseSignal::Suspended => {
                self.suspended = true;
                shim.order(Order::Freeze);
            }
            LeaseSignal::Held { until } => {
                let at = nanos(until);
                let thaws = std::mem::take(&mut self.suspended);
                shim.order(if thaws { Order::Thaw(at) } else { Order::Deadline(at) });
            }
        }
    }

    fn hear(&mut self, shim: &ShimProcess, status: Status) {
        let now = self.clock.now();
        match status {
            Status::Started { pid, isolation } => {
                tracing::debug!(pid, %isolation, "the agent was started");
                self.reached.send_replace(Some(isolation.clone()));
                self.ended.isolation = Some(isolation);
                self.started = Some(now);
                self.progress.send_modify(|progress| progress.last_output = now);
            }
            Status::Exited { code, signal } => {
                self.ended.exit = Some(Exit { code, signal });
                self.end_began.get_or_insert(now);
            }
            Status::Frozen { missed } => {
                tracing::warn!(missed, "the agent is frozen: its lease was not renewed");
                self.frozen_since.get_or_insert(now);
                if missed && !self.suspended {
                    // The renewal may have crossed the freeze on its way.
                    self.tell_lease(shim);
                }
            }
            Status::Thawed => {
                tracing::info!("the agent runs again");
                self.frozen_for += self.frozen_since.take().map_or(Duration::ZERO, |at| now - at);
                self.progress.send_modify(|progress| progress.last_output = now);
            }
            Status::Expired => {
                self.ended.intervention.get_or_insert(Intervention::LeaseLost);
                self.end_began.get_or_insert(now);
            }
            Status::TreeEmpty { ms, swept, out_of_memory } => {
                self.ended.out_of_memory = out_of_memory;
                if swept > 0 {
                    tracing::info!(swept, "processes that outlived the agent were ended");
                }
                self.ended.tree_empty_after = Some(Duration::from_millis(ms));
            }
            Status::Locked => {
                let message = format!(
                    "the sandbox is still in use by an earlier run of the order: its lock {} was held for {} s",
                    self.lock.display(),
                    self.lock_wait.as_secs()
                );
                let failure = Failure::new(ErrorClass::LostWorker, message);
                self.ended.problem = Some(Failure { sandbox_free: false, ..failure });
            }
            Status::Busy { message } => {
                // Waited out, at no cost to the order.
                self.ended.problem = Some(Failure::new(ErrorClass::Overloaded, message));
                self.ended.tree_empty_after = Some(Duration::ZERO);
            }
            Status::Setup { message, agent } => {
                let class = if disk::says_full(&message) {
                    ErrorClass::Disk
                } else if agent {
                    ErrorClass::Invalid
                } else {
                    ErrorClass::ToolError
                };
                self.ended.problem = Some(Failure::new(class, message));
                self.ended.tree_empty_after = Some(Duration::ZERO);
            }
        }
    }

    /// Ends the run, unless the agent has ended by itself; a stronger order may follow a weaker.
    fn end(&mut self, shim: &ShimProcess, why: Intervention, order: Order) {
        if self.ended.exit.is_none() {
            self.ended.intervention.get_or_insert(why);
        }
        if self.end_began.is_none() || order == Order::Kill {
            shim.order(order);
        }
        self.end_began.get_or_insert(self.clock.now());
    }

    /// When [`Self::keep_time`] has something to do, as far as is known now.
    fn next_due(&self) -> Option<Instant> {
        if let Some(at) = self.end_began {
            return (!self.shim_was_killed).then(|| at + self.patience);
        }
        if self.frozen_since.is_some() {
            return None;
        }
        // Before the start it is the shim that counts the time, and the lease that may last.
        let hard = self.hard_deadline()?;
        let progress = *self.progress.borrow();
        let exit = progress.exit_deadline(self.exit_grace);
        [Some(hard), progress.idle_deadline(self.idle_timeout), exit].into_iter().flatten().min()
    }

    fn hard_deadline(&self) -> Option<Instant> {
        self.started?.checked_add(self.hard_timeout.saturating_add(self.frozen_for))
    }

    fn keep_time(&mut self, shim: &mut ShimProcess) {
        let now = self.clock.now();
        let past = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        if let Some(at) = self.end_began {
            if now >= at + self.patience && !self.shim_was_killed {
                tracing::error!("the shim did not end the agent in time and is killed");
                shim.kill();
                self.shim_was_killed = true;
            }
            return;
        }
        if self.frozen_since.is_some() {
            return;
        }
        let progress = *self.progress.borrow();
        let grace_is_over = past(progress.exit_deadline(self.exit_grace));
        if progress.credential_refused && progress.stage == Stage::Working {
            self.end(shim, Intervention::CredentialRefused, Order::Interrupt);
        } else if progress.disk_full {
            // What it does from here on leaves no trace, and would be done again.
            self.end(shim, Intervention::DiskFull, Order::Interrupt);
        } else if grace_is_over {
            self.end(shim, Intervention::ExitGrace, Order::Interrupt);
        } else if past(self.hard_deadline()) {
            self.end(shim, Intervention::HardTimeout(self.hard_timeout), Order::Interrupt);
        } else if self.started.is_some() && past(progress.idle_deadline(self.idle_timeout)) {
            self.end(shim, Intervention::Idle(self.idle_timeout), Order::Interrupt);
        }
    }
}

/// Sleeps until then, or for ever.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}
