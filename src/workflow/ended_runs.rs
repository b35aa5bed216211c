//! Counts the runs of agents of an order that ended together with its worker: nobody goes on with it, and their
//! output may be on this volume.

use tracing::warn;

use super::{Workflow, agent_runs::read_spool, dossier::Dossier};
use crate::{
    domain::{Prices, WorkOrderId},
    store::CountedRun,
};

impl Workflow {
    /// Counts what is not counted of the ended job `job_id` of `order`. What is not on this volume stays so, until
    /// somebody goes on with the order where it is.
    pub async fn count_runs_of_ended(&self, job_id: i64, order: &str) {
        let Ok(order) = order.parse::<WorkOrderId>() else { return };
        let dossier = Dossier::existing(&self.settings.work_orders, &order);
        let mut after = 0;
        loop {
            let lost = match self.store.next_run_of_ended(job_id, after).await {
                Ok(Some(lost)) => lost,
                Ok(None) => return,
                Err(error) => {
                    warn!(work_order.id = %order, "its last runs are not counted: {error}");
                    return;
                }
            };
            after = lost.id;
            let Some((mut usage, session)) = read_spool(self, &dossier, &lost).await else {
                continue;
            };
            let models = usage.unpriced();
            let prices = if models.is_empty() {
                Prices::default()
            } else {
                self.store.prices(&models).await.unwrap_or_default()
            };
            usage.estimate(&prices);
            let goes_on = session == lost.session_id;
            let earlier = if goes_on { lost.earlier.0.as_slice() } else { &[] };
            let consumed = usage.consumed(earlier);
            let total = consumed.total();
            let left_behind = usage.left_behind();
            let run = CountedRun { run_id: lost.run_id, session, consumed, left_behind };
            match self.store.count_run_of_ended(job_id, &run).await {
                Ok(true) => self.metrics.agent_used(&total),
                Ok(false) => {}
                Err(error) => warn!(run.id = %lost.run_id, "a run was not counted: {error}"),
            }
        }
    }
}
