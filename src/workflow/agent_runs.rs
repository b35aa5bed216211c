//! What the agents of an order consume. Each run is noted before it starts, and counted once after its end: by us,
//! or, when our worker died before, by whoever goes on and finds its output.

use std::{io, path::Path};

use tracing::{info, warn};
use uuid::Uuid;

use super::{Workflow, dossier::Dossier, failure::StepError, order_run::OrderRun, turn::Turn};
use crate::{
    agent::{AgentReport, AgentRequest, spooled_usage},
    domain::{EarlierRun, Prices, RunUsage},
    store::{CountedRun, LostRun, NewAgentRun},
};

impl OrderRun<'_> {
    /// Notes a run before it starts; answers what earlier runs of its conversation left behind.
    pub(super) async fn begin_run(
        &self,
        turn: &Turn,
        request: &AgentRequest,
    ) -> Result<Vec<EarlierRun>, StepError> {
        let run = NewAgentRun {
            run_id: request.run_id,
            step: turn.step,
            attempt: turn.attempt,
            session: turn.session,
            spool: file_name(&request.spool),
        };
        Ok(self.store.begin_agent_run(&run).await?)
    }

    /// Counts a run that has ended. The order does not fail for want of it: what the database does not take now,
    /// whoever goes on with the order finds in the output of the run.
    pub(super) async fn count_run(
        &self,
        run_id: Uuid,
        planned: Uuid,
        report: &AgentReport,
        earlier: &[EarlierRun],
    ) {
        let session = report.session.unwrap_or(planned);
        let goes_on = report.resumed && session == planned;
        let earlier = if goes_on { earlier } else { &[] };
        self.count(run_id, session, &report.usage, earlier).await;
    }

    /// Counts the runs of former owners that nobody counted, as far as their output is on this volume.
    pub(super) async fn count_lost_runs(&self) -> Result<(), StepError> {
        let mut last = 0;
        while let Some(lost) = self.store.next_lost_run(last).await? {
            last = lost.id;
            self.count_lost_run(lost).await;
        }
        Ok(())
    }

    async fn count_lost_run(&self, lost: LostRun) {
        let read = read_spool(self.workflow, &self.dossier, &lost).await;
        let Some((usage, session)) = read else { return };
        let goes_on = session == lost.session_id;
        let earlier = if goes_on { lost.earlier.0.as_slice() } else { &[] };
        self.count(lost.run_id, session, &usage, earlier).await;
    }

    async fn count(&self, run_id: Uuid, session: Uuid, usage: &RunUsage, earlier: &[EarlierRun]) {
        let usage = self.estimated(usage).await;
        let consumed = usage.consumed(earlier);
        let total = consumed.total();
        let run = CountedRun { run_id, session, consumed, left_behind: usage.left_behind() };
        match self.interrupts.briefly(self.store.count_agent_run(&run)).await {
            Some(Ok(true)) => self.workflow.metrics.agent_used(&total),
            Some(Ok(false)) => {}
            Some(Err(error)) => warn!(run.id = %run_id, "a run was not counted: {error}"),
            None => warn!(run.id = %run_id, "a run was not counted: the database did not take it"),
        }
    }

    /// The same with dollars for what its agent did not come to report, as far as prices are known.
    async fn estimated(&self, usage: &RunUsage) -> RunUsage {
        let (mut usage, models) = (usage.clone(), usage.unpriced());
        if models.is_empty() {
            return usage;
        }
        let prices = match self.interrupts.briefly(self.store.prices(&models)).await {
            Some(Ok(prices)) => prices,
            // The list of prices needs no database.
            Some(Err(_)) | None => Prices::default(),
        };
        usage.estimate(&prices);
        usage
    }
}

/// What the output of a lost run shows, and its conversation; nothing when it is not on this volume.
pub(super) async fn read_spool(
    workflow: &Workflow,
    dossier: &Dossier,
    lost: &LostRun,
) -> Option<(RunUsage, Uuid)> {
    let spool = dossier.output(&lost.spool)?;
    let (agent, path) = (workflow.settings.agent.clone(), spool.clone());
    let read = tokio::task::spawn_blocking(move || spooled_usage(&agent, &path)).await;
    match read.map_err(io::Error::other).flatten() {
        Ok((usage, session)) => Some((usage, session.unwrap_or(lost.session_id))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            info!(run.id = %lost.run_id, "the output of a lost run is not on this volume");
            None
        }
        Err(error) => {
            let spool = spool.display();
            warn!(run.id = %lost.run_id, "what a lost run consumed is unknown: {spool}: {error}");
            None
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
