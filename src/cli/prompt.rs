//! `archon-awo prompt`: says more to a work order that has ended.

use super::{enqueue::pending, open_store, output::Output, wait, words};
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The work order.
    id: String,
    /// What the agent should do next, in words; `-` reads it from standard input.
    #[arg(value_name = "TEXT", allow_hyphen_values = true)]
    text: String,
    /// Open another pull request when that of the order was merged or closed.
    #[arg(long)]
    reopen: bool,
    /// Show the progress and end with the order: exit code 0 when it completed, else 5.
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(args: Args, config: &Config, output: &Output) -> anyhow::Result<()> {
    let text = words::read(args.text, "prompt").await?;
    let store = open_store(config).await?;
    let id = store.add_prompt(&args.id, &text, args.reopen).await?;
    if args.wait { wait::report_end(&store, &id, output).await } else { pending(&id, output) }
}
