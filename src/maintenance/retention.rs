//! Deletes history in small batches, drops old days of the log and makes room for the coming ones.

use std::time::Duration;

use tracing::{info, warn};

use super::{Maintenance, Stopped};
use crate::{lease::Lease, store::History};

/// Rows of one statement.
const BATCH: i64 = 1000;
/// Wait between two statements, so that others get their turn.
const PAUSE: Duration = Duration::from_millis(100);

impl Maintenance {
    pub(super) async fn retention(&self, lease: &Lease) -> Result<(), Stopped> {
        let made = self.store.ensure_log_days().await;
        if let Err(error) = &made {
            // There is a week to try again, and a table for what finds none.
            warn!("cannot make the log's tables for the coming days: {error}");
        }
        let orders = self.history.orders.map(History::Ended);
        let fires = self.history.orders.map(History::Fires);
        let log = self.history.logs.map(History::StrayLog);
        let parts = [Some(History::Maintenance), orders, fires, log];
        for part in parts.into_iter().flatten() {
            self.delete(part, lease).await?;
        }
        let Some(days) = self.history.logs else { return Ok(()) };
        while let Some(day) = self.store.drop_log_day(days).await? {
            info!(table = day, "dropped a day of the log");
            self.metrics.history_deleted("log_days", 1);
            self.pause(lease).await?;
        }
        Ok(())
    }

    /// Deletes all that is old of one part. A batch that takes too long is halved: rows with much
    /// behind them may need the whole time for a few.
    async fn delete(&self, part: History, lease: &Lease) -> Result<(), Stopped> {
        let (mut batch, mut total) = (BATCH, 0);
        loop {
            match self.store.delete_history(part, batch).await {
                Ok(rows) => {
                    total += rows;
                    self.metrics.history_deleted(part.word(), rows.unsigned_abs());
                    if rows < batch {
                        break;
                    }
                }
                Err(error) if error.is_transient() && batch > 1 => {
                    batch /= 2;
                    warn!(part = part.word(), batch, "deleting fewer rows at once: {error}");
                }
                Err(error) => return Err(error.into()),
            }
            self.pause(lease).await?;
        }
        if total > 0 {
            info!(part = part.word(), rows = total, "deleted old history");
        }
        Ok(())
    }

    async fn pause(&self, lease: &Lease) -> Result<(), Stopped> {
        self.clock.sleep(PAUSE).await;
        lease.stop_reason().map_or(Ok(()), |reason| Err(Stopped::Told(reason)))
    }
}
