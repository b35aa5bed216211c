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
    /// Open another pull request when that of the order was merged or closed.
    #[arg(long)]
    reopen: bool,
}

pub(super) async fn run(args: &Args, config: &Config, output: &Output) -> anyhow::Result<()> {
    let store = open_store(config).await?;
    let id = store.requeue(&args.id, args.from_step, args.reopen).await?;
    if output.is_json() {
        return output.document(&json!({ "agent_work_order_id": id, "status": "pending" }));
    }
    output.line(format!("{id} is queued again"))?;
    Ok(())
}
