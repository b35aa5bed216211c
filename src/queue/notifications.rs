//! The one listening connection of a replica: hands every notification to whom it concerns, proves
//! now and then that it still hears, and reconnects when it does not.

use std::{sync::Arc, time::Duration};

use sqlx::postgres::PgListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::wake::Wake;
use crate::{
    clock::Clock,
    lease::LeaseKeeper,
    store::{self, Database},
};

/// How often the connection is asked whether it still listens: a pooler, a failover or a half-open
/// connection drops that without an error.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Longest time to open it; what is in the way is asked for then.
const CONNECT: Duration = Duration::from_secs(10);

/// Who hears what.
pub struct Notifications {
    /// A connection of its own is opened with the pool's settings.
    pub database: Database,
    /// Lanes that look when one of their queues has got a job.
    pub lanes: Vec<Arc<Wake>>,
    /// Looks when a schedule has changed.
    pub schedules: Arc<Wake>,
    /// Beats at once when something is to be cancelled.
    pub keeper: Arc<LeaseKeeper>,
    /// Time and randomness.
    pub clock: Clock,
}

impl Notifications {
    /// Listens until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                result = self.listen() => {
                    self.heard(false);
                    match result {
                        Ok(()) => debug!("listening connection lost, reconnecting"),
                        Err(error) => {
                            let reason = store::words(&error);
                            warn!("cannot listen for notifications, polling: {reason}");
                        }
                    }
                }
            }
            let pause = self.clock.between(Duration::from_millis(500), Duration::from_secs(2));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(pause) => {}
            }
        }
    }

    async fn listen(&self) -> Result<(), sqlx::Error> {
        let connected = timeout(CONNECT, PgListener::connect_with(self.database.connections()));
        let mut listener = match connected.await {
            Ok(Err(sqlx::Error::PoolTimedOut)) | Err(_) => {
                return Err(self.database.why_late().await);
            }
            Ok(connected) => connected?,
        };
        listener.listen_all(store::CHANNELS).await?;
        self.heard(true);
        // Something may have been queued or cancelled while nobody listened.
        self.lanes.iter().for_each(|lane| lane.look_now());
        self.schedules.look_now();
        self.keeper.beat_now();
        loop {
            match timeout(KEEPALIVE, listener.try_recv()).await {
                Ok(Ok(Some(heard))) if heard.channel() == "awo_cancel" => self.keeper.beat_now(),
                Ok(Ok(Some(heard))) if heard.channel() == "awo_schedules" => {
                    self.schedules.look_now();
                }
                Ok(Ok(Some(heard))) => {
                    self.lanes.iter().for_each(|lane| lane.queued(heard.payload()));
                }
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

    fn heard(&self, listening: bool) {
        self.lanes.iter().for_each(|lane| lane.listening(listening));
        self.schedules.listening(listening);
    }
}
