//! Takes connections: only so many, each with a time in which it has to ask, and none while the system is
//! short of descriptors, which the work of orders needs more.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::clock::Clock;

/// Longest time from a connection, or from the answer before, to the end of a request's head.
const TIME_TO_ASK: Duration = Duration::from_secs(10);
/// Most bytes of that head.
const LONGEST_HEAD: usize = 64 << 10;
/// Most connections, where the limit of descriptors allows that.
const MOST: usize = 256;
/// The part of all descriptors that connections may take: one in so many.
const SHARE: u64 = 4;
/// Wait after the system had no descriptor or no memory for a connection.
const SHORTAGE: Duration = Duration::from_millis(100);

/// A connection that is open.
struct Open {
    /// Whether it ever asked for something.
    asked: Arc<AtomicBool>,
    task: AbortHandle,
}

/// The connections that are open, oldest first.
struct Connections {
    open: VecDeque<Open>,
    most: usize,
}

/// Answers with `router` until `stop`; requests begun by then are finished.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken, clock: Clock) {
    let mut connections = Connections { open: VecDeque::new(), most: most() };
    let answering = GracefulShutdown::new();
    let mut spare = spare();
    let mut short = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                short = false;
                connections.take(stream, &router, &answering);
            }
            // It was gone before it was taken.
            Err(error) if of_the_connection(&error) => {}
            Err(error) => {
                if !short {
                    tracing::warn!("no connection can be taken for now: {error}");
                }
                short = true;
                // With the one in reserve whoever waits is told no, instead of nothing.
                drop(spare.take());
                let refused = tokio::time::timeout(SHORTAGE, listener.accept()).await;
                drop(refused);
                clock.sleep(SHORTAGE).await;
                spare = self::spare();
            }
        }
    }
    drop(listener);
    answering.shutdown().await;
}

impl Connections {
    /// Answers on one more connection. Where there are too many the oldest goes that never asked for anything;
    /// if all did, this one does not stay.
    fn take(&mut self, stream: TcpStream, router: &Router, answering: &GracefulShutdown) {
        self.open.retain(|open| !open.task.is_finished());
        if self.open.len() >= self.most {
            let silent = self.open.iter().position(|open| !open.asked.load(Ordering::Relaxed));
            let Some(silent) = silent.and_then(|number| self.open.remove(number)) else { return };
            silent.task.abort();
        }
        let asked = Arc::new(AtomicBool::new(false));
        let asks = Arc::clone(&asked);
        let router = router.clone().map_request(move |request: hyper::Request<Incoming>| {
            asks.store(true, Ordering::Relaxed);
            request
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(TIME_TO_ASK)
            .max_buf_size(LONGEST_HEAD)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        let connection = answering.watch(connection);
        let task = tokio::spawn(async move {
            // It broke: nobody is left to be told.
            let _ = connection.await;
        });
        self.open.push_back(Open { asked, task: task.abort_handle() });
    }
}

/// Most connections under the limit of descriptors that holds here.
fn most() -> usize {
    use nix::sys::resource::{Resource, getrlimit};
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(now, _)| now);
    usize::try_from(descriptors / SHARE).unwrap_or(MOST).clamp(8, MOST)
}

/// A descriptor to be given up when there is no other.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Whether an error is about one connection, and not about what the system has left.
fn of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(error.kind(), E::ConnectionRefused | E::ConnectionAborted | E::ConnectionReset)
}
