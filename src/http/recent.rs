//! An answer that is asked for at most once per interval, however many clients ask.

use std::{future::Future, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use crate::clock::Clock;

/// The last answer and its time.
#[derive(Debug)]
pub(super) struct Recent<T> {
    clock: Clock,
    keep: Duration,
    last: Mutex<Option<(Instant, T)>>,
}

impl<T: Clone> Recent<T> {
    /// Answers count for `keep`.
    pub fn new(clock: Clock, keep: Duration) -> Self {
        Self { clock, keep, last: Mutex::new(None) }
    }

    /// The last answer while it counts, else a new one. Clients that ask meanwhile wait for it.
    pub async fn get(&self, ask: impl Future<Output = T>) -> T {
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = last.as_ref()
            && self.clock.now().duration_since(*at) < self.keep
        {
            return answer.clone();
        }
        let answer = ask.await;
        *last = Some((self.clock.now(), answer.clone()));
        answer
    }
}
