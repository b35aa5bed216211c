//! Two-stage stop: the first signal asks for an orderly end, the second for an end now.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The two stages. Cheap to clone; all clones see the same stop.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Take nothing new, finish what runs within the grace period.
    pub soft: CancellationToken,
    /// Give up what runs, now.
    pub hard: CancellationToken,
}

impl Shutdown {
    /// Listens for SIGTERM and SIGINT: the first one is the soft stop, the second one the hard one.
    pub fn on_signals() -> std::io::Result<Self> {
        let (shutdown, listening) = Self::listen()?;
        tokio::spawn(listening);
        Ok(shutdown)
    }

    /// The same; signals are heard as long as the second value is polled, which ends with the hard stop.
    pub fn listen() -> std::io::Result<(Self, impl Future<Output = ()> + Send + 'static)> {
        let shutdown = Self::default();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stages = shutdown.clone();
        let listening = async move {
            for stage in [&stages.soft, &stages.hard] {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if stages.soft.is_cancelled() {
                    tracing::warn!(signal = name, "stopping now");
                } else {
                    tracing::info!(signal = name, "stopping: taking no new work orders");
                }
                stage.cancel();
            }
        };
        Ok((shutdown, listening))
    }

    /// Whether a stop was asked for.
    pub fn is_stopping(&self) -> bool {
        self.soft.is_cancelled()
    }
}
