//! `archon-awo requeue`: runs a work order again.

use serde_json::json;

use super::{open_store, output::Output};
use crate::{config::Config, domain::StepName};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The work order.
    id: String,
    /// Do this step and those after it again; without it, only what is not done.
    #[arg(long, value_name = "STEP")]
    from_step: Option<StepName>,
}

pub(super) async fn run(args: &Args, config: &Config, output: &Output) -> anyhow::Result<()> {
    let id = open_store(config).await?.requeue(&args.id, args.from_step).await?;
    if output.is_json() {
        return output.document(&json!({ "agent_work_order_id": id, "status": "pending" }));
    }
    output.line(format!("{id} is queued again"))?;
    Ok(())
}
