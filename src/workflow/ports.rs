//! The ports of a running order: taken before its first agent starts, and held until its run ends.

use tracing::{info, warn};

use super::{
    failure::{Failure, StepError},
    order_run::OrderRun,
};
use crate::{domain::ErrorClass, git::Sandbox, ports::PortRange};

/// Where the range is noted in the dossier, for a run that resumes the order.
const NOTE: &str = "ports";

impl OrderRun<'_> {
    /// The variables that tell an agent its ports, the same for every agent of this run; they are
    /// also put into `.ports.env`. None where the worker hands out no ports.
    pub(super) async fn port_environment(
        &mut self,
        sandbox: &Sandbox,
    ) -> Result<Vec<(String, String)>, StepError> {
        if let Some(range) = &self.ports {
            return Ok(range.environment());
        }
        let Some(range) = self.take_ports().await? else { return Ok(Vec::new()) };
        match sandbox.write_ports_file(range.file()).await {
            Ok(true) => {}
            Ok(false) => info!("the repository has a .ports.env of its own, which is left alone"),
            Err(error) if error.class() == ErrorClass::Disk => return Err(error.into()),
            // The environment says the same; an agent may have made its checkout unwritable.
            Err(error) => warn!("cannot write .ports.env: {}", error.sentence()),
        }
        let environment = range.environment();
        self.ports = Some(range);
        Ok(environment)
    }

    async fn take_ports(&self) -> Result<Option<PortRange>, StepError> {
        let Some(pool) = self.workflow.settings.ports.clone() else { return Ok(None) };
        let noted = self.dossier.recall(NOTE).await;
        let before = noted.and_then(|text| text.trim().parse().ok());
        let name = self.order.id.to_string();
        let taken = tokio::task::spawn_blocking(move || pool.take(&name, before)).await;
        let range = match taken {
            Ok(Ok(range)) => range,
            Ok(Err(error)) => {
                return Err(Failure::new(ErrorClass::Overloaded, error.to_string()).into());
            }
            Err(error) => {
                let text = format!("cannot look for free ports: {error}");
                return Err(Failure::new(ErrorClass::Overloaded, text).into());
            }
        };
        self.dossier.remember(NOTE, &format!("{}\n", range.first())).await?;
        info!(first = range.first(), last = range.last(), "the order has its ports");
        Ok(Some(range))
    }
}
