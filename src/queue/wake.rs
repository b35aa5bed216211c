//! Tells an idle lane when to look at the queue: polling is the truth, notifications are a hint.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

use crate::clock::Clock;

/// How often an idle lane looks by itself; each wait is drawn anew, so that replicas spread out.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Shortest wait while notifications do not arrive.
    pub min: Duration,
    /// Longest wait while notifications do not arrive.
    pub max: Duration,
    /// Longest wait while they are proven to arrive.
    pub idle: Duration,
}

/// Wakes one lane. Shared by the listener, the lane and whoever frees a slot.
#[derive(Debug)]
pub struct Wake {
    queues: Vec<String>,
    look: Notify,
    listening: AtomicBool,
}

impl Wake {
    /// For a lane that serves `queues`; nobody listens yet.
    pub fn new(queues: Vec<String>) -> Self {
        Self { queues, look: Notify::new(), listening: AtomicBool::new(false) }
    }

    /// Makes the lane look at once.
    pub fn look_now(&self) {
        self.look.notify_one();
    }

    /// Makes it look when it serves `queue`; an empty name means all of them.
    pub fn queued(&self, queue: &str) {
        if queue.is_empty() || self.queues.iter().any(|own| own == queue) {
            self.look_now();
        }
    }

    /// Whether notifications are proven to arrive.
    pub fn listening(&self, listening: bool) {
        self.listening.store(listening, Ordering::Relaxed);
    }

    /// Waits for a reason to look: a notification, or the time of the next poll. `due` is when the
    /// next scheduled job becomes ready.
    pub async fn wait(&self, clock: &Clock, pace: &Pace, due: Option<Duration>) {
        let poll = if self.listening.load(Ordering::Relaxed) {
            clock.between(pace.idle.mul_f64(0.8), pace.idle)
        } else {
            clock.between(pace.min, pace.max)
        };
        let wait = due.map_or(poll, |due| poll.min(due + Duration::from_millis(1)));
        tokio::select! {
            () = self.look.notified() => {}
            () = clock.sleep(wait) => {}
        }
    }
}
