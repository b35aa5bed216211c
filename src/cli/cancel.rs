//! `archon-awo cancel`: stops a work order.

use serde_json::json;

use super::{open_store, output::Output};
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The work order.
    id: String,
    /// Why, for whoever reads it later.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) async fn run(args: &Args, config: &Config, output: &Output) -> anyhow::Result<()> {
    let id = &args.id;
    let answer = open_store(config).await?.cancel(id, args.reason.as_deref()).await?;
    if output.is_json() {
        return output.document(&json!({ "agent_work_order_id": id, "result": answer }));
    }
    output.line(match answer.as_str() {
        "cancelled" => format!("{id} is cancelled"),
        "requested" => format!("{id} is running: its worker was told to stop"),
        ended => format!("{id} has ended already ({ended}): nothing was done"),
    })?;
    Ok(())
}
