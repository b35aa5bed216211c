//! Tells an idle worker when to look at the queue: polling is the truth, notifications are a hint.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{PgPool, postgres::PgListener};
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{clock::Clock, config::QueueConfig, lease::LeaseKeeper, store};

/// How often the listening connection is asked whether it still listens.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Wakes the claim loop. Shared by the listener, the claim loop and whoever frees a slot.
#[derive(Debug, Default)]
pub struct Wake {
    look: Notify,
    listening: AtomicBool,
}

impl Wake {
    /// Makes the claim loop look at once.
    pub fn look_now(&self) {
        self.look.notify_one();
    }

    /// Waits for a reason to look: a notification, or the time of the next poll. `next_due` is when
    /// the next scheduled job becomes ready.
    pub async fn wait(&self, clock: &Clock, timings: &QueueConfig, next_due: Option<Duration>) {
        let poll = if self.listening.load(Ordering::Relaxed) {
            clock.between(timings.poll_idle.mul_f64(0.8), timings.poll_idle)
        } else {
            clock.between(timings.poll_min, timings.poll_max)
        };
        let wait = next_due.map_or(poll, |due| poll.min(due + Duration::from_millis(1)));
        tokio::select! {
            () = self.look.notified() => {}
            () = clock.sleep(wait) => {}
        }
    }
}

/// Listens until `stop`, reconnecting whenever the connection is lost or has gone deaf.
pub async fn listen(
    pool: PgPool,
    wake: Arc<Wake>,
    keeper: Arc<LeaseKeeper>,
    clock: Clock,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            result = listen_once(&pool, &wake, &keeper) => {
                wake.listening.store(false, Ordering::Relaxed);
                match result {
                    Ok(()) => debug!("listening connection lost, reconnecting"),
                    Err(error) => warn!("cannot listen for notifications, polling: {error}"),
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = clock.sleep(clock.between(Duration::from_millis(500), Duration::from_secs(2))) => {}
        }
    }
}

async fn listen_once(pool: &PgPool, wake: &Wake, keeper: &LeaseKeeper) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen_all(["awo_jobs", "awo_cancel"]).await?;
    wake.listening.store(true, Ordering::Relaxed);
    // Something may have been queued or cancelled while nobody listened.
    wake.look_now();
    keeper.beat_now();
    loop {
        match timeout(KEEPALIVE, listener.try_recv()).await {
            Ok(Ok(Some(notification))) if notification.channel() == "awo_cancel" => {
                keeper.beat_now();
            }
            Ok(Ok(Some(_))) => wake.look_now(),
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_quiet) => {
                let asked = timeout(KEEPALIVE / 3, store::is_listening(&mut listener)).await;
                if !matches!(asked, Ok(Ok(true))) {
                    return Ok(());
                }
            }
        }
    }
}
