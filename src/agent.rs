//! stub until merge
use tokio::time::Instant;
/// Lease signal.
#[derive(Debug, Clone, Copy)]
pub enum LeaseSignal {
    /// Held until the deadline.
    Held {
        /// When.
        deadline: Instant,
    },
    /// Freeze.
    Suspended,
    /// Kill.
    Lost,
}
