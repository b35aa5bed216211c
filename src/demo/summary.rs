//! The report of a demo as text.

use std::fmt::Write as _;

use uuid::Uuid;

use super::report::{Counts, Kill, OrderReport, Report, StepReport};

/// The report as a person reads it.
pub fn of(report: &Report) -> String {
    // Writing to a string cannot fail, here and below.
    let mut text = format!("\nPull requests (agent: {}):\n", report.agent);
    for order in &report.orders {
        let (Some(url), Some(branch)) = (&order.pull_request_url, &order.branch) else { continue };
        let title = order.pull_request_title.as_deref().unwrap_or("(no title)");
        let _ = write!(text, "  {title}\n    {url}\n    {branch}: {}\n", order.change);
    }
    if !report.first_diff.is_empty() {
        let of = if report.orders.len() > 1 { " of the first" } else { "" };
        let _ = write!(text, "\nDiff{of}:\n\n{}", report.first_diff);
    }
    let mut rows =
        vec![["order", "step", "attempt", "outcome", "seconds", "worker"].map(str::to_owned)];
    for order in &report.orders {
        rows.extend(order.steps.iter().map(|step| step_row(report, order, step)));
    }
    let _ = write!(text, "\nSteps:\n{}", table(&rows));
    if let Some(kill) = &report.kill {
        text.push_str(&death(report, kill));
    }
    let Counts { orders, completed, branches, pull_requests, broken_invariants } = &report.counts;
    let _ = write!(
        text,
        "\n{completed} of {orders} orders completed in {:.1} s; in the repository: {branches} \
         branches, {pull_requests} pull requests; rows in awo.invariants: {broken_invariants}\n",
        report.seconds
    );
    text
}

fn step_row(report: &Report, order: &OrderReport, step: &StepReport) -> [String; 6] {
    let outcome = match (&step.error_class, step.success) {
        (Some(class), _) => class.clone(),
        (None, true) => "done".to_owned(),
        (None, false) => "interrupted".to_owned(),
    };
    [
        order.id.clone(),
        step.step.clone(),
        step.attempt.to_string(),
        outcome,
        format!("{:.1}", step.seconds),
        worker(report, step.worker_id),
    ]
}

/// Which orders the killed replica held, and who went on with them.
fn death(report: &Report, kill: &Kill) -> String {
    let columns = ["order", "interrupted in", "resumed at", "by", "seconds after the kill"];
    let mut rows = vec![columns.map(str::to_owned)];
    rows.extend(kill.orders.iter().map(|order| {
        [
            order.work_order_id.clone(),
            order.interrupted_step.clone().unwrap_or_default(),
            order.resumed_step.clone().unwrap_or_default(),
            worker(report, order.worker_id),
            order.seconds.map_or_else(String::new, |seconds| format!("{seconds:.1}")),
        ]
    }));
    let at = kill.killed_at.format("%H:%M:%S%.3f UTC");
    format!("\nReplica {} was killed at {at}. What it held:\n{}", kill.replica, table(&rows))
}

/// A worker as a person can find it: its replica and the beginning of its id.
fn worker(report: &Report, id: Option<Uuid>) -> String {
    let Some(id) = id else { return String::new() };
    let mut short = id.simple().to_string();
    short.truncate(8);
    match report.workers.get(&id) {
        Some(number) => format!("replica {number} ({short})"),
        None => short,
    }
}

/// Columns of equal width, two spaces apart.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from("  ");
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_line_up() {
        let rows = [["a", "bcd"], ["long", "e"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "  a     bcd\n  long  e\n");
    }
}
