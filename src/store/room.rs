//! Lends the connections of the pool: as many at once as the server gives.
//!
//! sqlx opens a connection whenever none lies idle and its limit is not reached. Where the server's limit
//! is lower, such a caller would try in vain until its time is over, while others give connections back.
//! Here it takes one of those, and fewer callers are let in from then on.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, Error, PgConnection, PgPool, Postgres, pool::PoolConnection,
};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tracing::warn;

use super::words::{is_shortage, words};

/// A connection takes less than this to open; after it we look for what is in the way.
const USUAL: Duration = Duration::from_millis(250);

/// How long callers take turns with what there is before one of them tries to open a connection, and after
/// how long one more caller is let in: somebody else may have given connections back.
const SHORT_OF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Longest wait for the answer to one attempt to connect.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Who may use a connection of the pool. Shared by all handles of it.
#[derive(Debug)]
pub(super) struct Room {
    pool: PgPool,
    entries: Arc<Semaphore>,
    /// Most callers at once.
    most: usize,
    /// How many of them are let in at present.
    let_in: AtomicUsize,
    /// Held by the one that asks the server why it gives no connection.
    asking: Mutex<()>,
    /// Whether a connection was closed for one outside the pool, which was refused all the same.
    gave_one_up: AtomicBool,
}

/// A connection of the pool, which goes back when this is dropped.
#[derive(Debug)]
pub(super) struct Lent {
    // In this order: the connection goes back first.
    connection: PoolConnection<Postgres>,
    _entry: OwnedSemaphorePermit,
}

impl Lent {
    /// Has the connection closed instead of given back.
    pub(super) fn close_on_drop(&mut self) {
        self.connection.close_on_drop();
    }
}

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Room {
    pub(super) fn new(pool: PgPool) -> Arc<Self> {
        let most = usize::try_from(pool.options().get_max_connections()).unwrap_or(usize::MAX);
        let most = most.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            pool,
            entries: Arc::new(Semaphore::new(most)),
            most,
            let_in: AtomicUsize::new(most),
            asking: Mutex::default(),
            gave_one_up: AtomicBool::new(false),
        })
    }

    /// A connection, within the pool's own limit of time. The error is the server's reason where it has one.
    pub(super) async fn lend(self: &Arc<Self>) -> Result<Lent, Error> {
        match timeout(self.pool.options().get_acquire_timeout(), self.turn()).await {
            Ok(Err(Error::PoolTimedOut)) | Err(_) => Err(self.late().await),
            Ok(done) => done,
        }
    }

    async fn turn(self: &Arc<Self>) -> Result<Lent, Error> {
        let entry = Arc::clone(&self.entries).acquire_owned().await;
        let entry = entry.map_err(|_| Error::PoolClosed)?;
        let is_short = self.let_in.load(Ordering::Relaxed) < self.most;
        let refused = OnceLock::new();
        let open = async {
            if is_short {
                sleep(SHORT_OF.0).await;
            }
            self.pool.acquire().await
        };
        let idle = async {
            if !is_short {
                sleep(USUAL).await;
            }
            self.next_idle().await
        };
        let ask = async {
            sleep(if is_short { SHORT_OF.0 + USUAL } else { USUAL }).await;
            let _one = self.asking.lock().await;
            if let Some(error) = self.refusal().await.filter(is_shortage) {
                let _ = refused.set(error);
            }
            std::future::pending::<()>().await;
        };
        let connection = tokio::select! {
            biased;
            opened = open => opened?,
            found = idle => found,
            () = ask => return Err(Error::PoolTimedOut),
        };
        if let Some(error) = refused.get() {
            self.let_in_fewer(error);
        }
        Ok(Lent { connection, _entry: entry })
    }

    /// The next connection that somebody gives back, and that works.
    pub(super) async fn next_idle(&self) -> PoolConnection<Postgres> {
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(mut connection) = self.pool.try_acquire() {
                if connection.ping().await.is_ok() {
                    return connection;
                }
                connection.close_on_drop();
            } else {
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(20));
            }
        }
    }

    /// Closes an idle connection, so that somebody else may open one. Only once until [`Self::has_enough`]:
    /// where the server's limit is lower than what is open already, each that is closed is lost.
    pub(super) async fn give_one_up(&self) -> bool {
        if self.gave_one_up.swap(true, Ordering::Relaxed) {
            return false;
        }
        match timeout(SHORT_OF.0, self.next_idle()).await {
            Ok(connection) => connection.close().await.is_ok(),
            Err(_) => false,
        }
    }

    /// A connection outside the pool could be opened.
    pub(super) fn has_enough(&self) {
        self.gave_one_up.store(false, Ordering::Relaxed);
    }

    /// One caller fewer at once, for a while; the last one stays.
    fn let_in_fewer(self: &Arc<Self>, error: &Error) {
        let fewer = |now: usize| (now > 1).then(|| now - 1);
        let changed = self.let_in.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
        let Ok(before) = changed else { return };
        if before == self.most {
            warn!(
                "the database gives fewer connections than the {} this process may use: {}; going on with those it gave",
                self.most,
                words(error)
            );
        }
        let room = Arc::clone(self);
        tokio::spawn(async move {
            // The next entry that is free is kept out.
            if let Ok(entry) = Arc::clone(&room.entries).acquire_owned().await {
                sleep(SHORT_OF.1).await;
                room.let_in.fetch_add(1, Ordering::Relaxed);
                drop(entry);
            }
        });
    }

    /// Why a connection was not to be had in time.
    pub(super) async fn late(&self) -> Error {
        // One asks; the others would only learn the same.
        let Ok(_one) = self.asking.try_lock() else { return Error::PoolTimedOut };
        self.refusal().await.unwrap_or(Error::PoolTimedOut)
    }

    /// What the server says to one more attempt, when it refuses it.
    async fn refusal(&self) -> Option<Error> {
        refusal(&self.pool.connect_options()).await
    }
}

/// What the server says to one attempt to connect, when it refuses it.
pub(super) async fn refusal(options: &sqlx::postgres::PgConnectOptions) -> Option<Error> {
    match timeout(ATTEMPT, options.connect()).await {
        Ok(Err(error)) => Some(error),
        Ok(Ok(connection)) => {
            let _ = connection.close().await;
            None
        }
        Err(_) => None,
    }
}
