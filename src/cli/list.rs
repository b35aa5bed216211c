//! `archon-awo list`: the newest work orders.

use super::{
    open_store,
    output::{Output, first_line, status, time},
};
use crate::{config::Config, domain::OrderStatus, store::OrderSummary};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only orders of this status.
    #[arg(long)]
    status: Option<OrderStatus>,
    /// At most this many.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

pub(super) async fn run(args: &Args, config: &Config, output: &Output) -> anyhow::Result<()> {
    let store = open_store(config).await?;
    let orders = store.list_orders(args.status, args.limit).await?;
    if output.is_json() {
        return output.document(&orders);
    }
    let rows: Vec<Vec<String>> = orders
        .iter()
        .map(|order| {
            vec![
                order.agent_work_order_id.clone(),
                status(&order.status),
                phase(order),
                time(order.created_at),
                first_line(&order.repository_url, 40),
                first_line(&order.user_request, 50),
            ]
        })
        .collect();
    if rows.is_empty() {
        eprintln!("there are no such work orders");
        return Ok(());
    }
    output.table(
        &["ID", "STATUS", "PHASE OR WAITING FOR", "CREATED (UTC)", "REPOSITORY", "REQUEST"],
        &rows,
    )?;
    Ok(())
}

/// The step that runs, or what a waiting order waits for.
fn phase(order: &OrderSummary) -> String {
    match (&order.waiting_for, &order.current_phase) {
        (Some(waiting), _) => first_line(&waiting.to_string(), 50),
        (None, Some(phase)) => phase.clone(),
        (None, None) => "-".to_owned(),
    }
}
