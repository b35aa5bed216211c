//! Time and randomness, passed in so that tests can move the one and fix the other.

use std::{sync::Arc, time::Duration};

use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// Reads time and draws random numbers. Cheap to clone.
///
/// Time that is compared with the database is never read here: the database's own `now()` is.
#[derive(Clone)]
pub struct Clock {
    random: Arc<dyn Fn() -> f64 + Send + Sync>,
}

impl Clock {
    /// The time of the tokio runtime (which tests can pause) and the system's random source.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that draws randomness")]
    pub fn system() -> Self {
        Self { random: Arc::new(rand::random::<f64>) }
    }

    /// A clock whose random numbers are all `value` (in `0.0..1.0`), for tests.
    pub fn with_random(value: f64) -> Self {
        Self { random: Arc::new(move || value) }
    }

    /// A monotonic reading for deadlines.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// A reading of the clock that also counts while the machine sleeps, since its start. What must
    /// end when a lease does is counted by this one.
    pub fn boot_time(&self) -> Duration {
        boot_time()
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// A random duration in `low..=high`.
    pub fn between(&self, low: Duration, high: Duration) -> Duration {
        low + high.saturating_sub(low).mul_f64((self.random)())
    }
}

/// The clock that also counts while the machine sleeps, for processes that have no [`Clock`].
pub fn boot_time() -> Duration {
    // Every Linux since 2.6.39 has this clock, so the fallback is never used; it means "at once".
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}
