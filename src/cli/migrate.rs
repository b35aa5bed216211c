//! `archon-awo migrate`: brings the schema up to date, or says whether it is.

use serde_json::json;

use super::{COMMAND_CONNECTIONS, output::Output};
use crate::{config::Config, store};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Change nothing; exit code 4 when this program needs a newer schema.
    #[arg(long)]
    check: bool,
}

pub(super) async fn run(args: &Args, config: &Config, output: &Output) -> anyhow::Result<()> {
    let database = &config.database;
    let pool = store::connect(database.required_url()?, database.mode, COMMAND_CONNECTIONS).await?;
    if !args.check {
        store::Server::look(&pool).await?.writable()?;
    }
    let before = store::schema_state(&pool).await?;
    if !args.check {
        store::migrate(&pool).await?;
    }
    let now = store::schema_state(&pool).await?;
    if output.is_json() {
        output.document(&json!({
            "version_before": before.found,
            "version": now.found,
            "version_expected": now.expected,
            "up_to_date": now.check().is_ok(),
        }))?;
    } else if now.check().is_ok() {
        let text = if now.is_newer() {
            let (found, expected) = (now.found, now.expected);
            format!(
                "the schema is newer than this program (version {found}, made for {expected}): nothing to do"
            )
        } else if before.found == now.found {
            format!("the schema is up to date (version {})", now.found)
        } else {
            format!("the schema went from version {} to {}", before.found, now.found)
        };
        output.line(text)?;
    }
    now.check()?;
    Ok(())
}
