//! What came out of a demo, read from the database and from the repository, and what is wrong with
//! it.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, IsTerminal, Write},
};

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::place::Place;
use crate::sql;

/// Everything `archon-awo demo --json` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Who did the work.
    pub agent: &'static str,
    /// From the insert to the end of the last order.
    pub seconds: f64,
    /// The numbers that must agree.
    pub counts: Counts,
    /// Every order.
    pub orders: Vec<OrderReport>,
    /// The replica that was killed.
    pub kill: Option<Kill>,
    /// What is not as it should be; empty after a good demo.
    pub problems: Vec<String>,
    #[serde(skip)]
    pub first_diff: String,
    #[serde(skip)]
    pub workers: HashMap<Uuid, usize>,
}

/// Counted in the database (`orders`, `completed`, `broken_invariants`) and in the repository.
#[derive(Debug, Serialize)]
pub struct Counts {
    pub orders: usize,
    pub completed: usize,
    pub branches: usize,
    pub pull_requests: usize,
    pub broken_invariants: usize,
}

/// One order.
#[derive(Debug, Serialize, sqlx::FromRow)]
pub struct OrderReport {
    pub id: String,
    pub request: String,
    pub status: String,
    pub branch: Option<String>,
    pub pull_request_url: Option<String>,
    #[sqlx(skip)]
    pub pull_request_title: Option<String>,
    /// `git diff --shortstat` of the branch.
    #[sqlx(skip)]
    pub change: String,
    pub error_message: Option<String>,
    /// From the insert to the end.
    pub seconds: Option<f64>,
    #[sqlx(skip)]
    pub steps: Vec<StepReport>,
}

/// One run of a step.
#[derive(Debug, Serialize, sqlx::FromRow)]
pub struct StepReport {
    #[serde(skip)]
    order_id: String,
    pub step: String,
    pub attempt: i32,
    pub success: bool,
    pub error_class: Option<String>,
    pub seconds: f64,
    pub worker_id: Option<Uuid>,
}

/// The end of a replica.
#[derive(Debug, Serialize)]
pub struct Kill {
    /// Its number, from 1.
    pub replica: usize,
    /// Its process.
    pub pid: u32,
    /// Its worker.
    pub worker_id: Uuid,
    /// By the clock of the database.
    pub killed_at: DateTime<Utc>,
    /// What it held, and who went on with that.
    pub orders: Vec<HeldOrder>,
}

/// An order of a killed replica.
#[derive(Debug, Serialize, sqlx::FromRow)]
pub struct HeldOrder {
    pub work_order_id: String,
    /// The step that was cut off; none between two steps.
    pub interrupted_step: Option<String>,
    /// The first step of the next claim; none when nobody claimed it.
    pub resumed_step: Option<String>,
    /// Who claimed it.
    pub worker_id: Option<Uuid>,
    /// From the kill to the claim.
    pub seconds: Option<f64>,
}

impl Report {
    /// Reads everything while the place still stands.
    pub async fn read(
        place: &Place,
        workers: HashMap<Uuid, usize>,
        mut kill: Option<Kill>,
        seconds: f64,
    ) -> anyhow::Result<Self> {
        let pool = &place.pool;
        let mut orders: Vec<OrderReport> =
            sqlx::query_as(sql!("demo/orders")).fetch_all(pool).await?;
        let steps: Vec<StepReport> = sqlx::query_as(sql!("demo/steps")).fetch_all(pool).await?;
        for step in steps {
            if let Some(order) = orders.iter_mut().find(|order| order.id == step.order_id) {
                order.steps.push(step);
            }
        }
        let refs = place.remote.refs().await?;
        let mut first_diff = String::new();
        for order in &mut orders {
            order.pull_request_title = order.pull_request_url.as_deref().and_then(title);
            let Some(branch) = order.branch.as_deref() else { continue };
            if !refs.contains(&format!("refs/heads/{branch}")) {
                continue;
            }
            let change = place.remote.diff(branch, &["--shortstat"]).await?;
            change.trim().clone_into(&mut order.change);
            if first_diff.is_empty() {
                let terminal = io::stdout().is_terminal();
                let color = if terminal { "--color=always" } else { "--color=never" };
                first_diff = place.remote.diff(branch, &["--stat", "--patch", color]).await?;
            }
        }
        if let Some(kill) = &mut kill {
            kill.orders = sqlx::query_as(sql!("demo/resumed"))
                .bind(kill.worker_id)
                .bind(kill.killed_at)
                .fetch_all(pool)
                .await?;
        }
        let broken: Vec<(String, String)> =
            sqlx::query_as(sql!("demo/invariants")).fetch_all(pool).await?;
        let beginning = |prefix: &str| refs.iter().filter(|name| name.starts_with(prefix)).count();
        let counts = Counts {
            orders: orders.len(),
            completed: orders.iter().filter(|order| order.status == "completed").count(),
            branches: beginning("refs/heads/"),
            pull_requests: beginning("refs/awo/pulls/"),
            broken_invariants: broken.len(),
        };
        let agent = place.agent.label();
        let mut report = Self {
            agent,
            seconds,
            counts,
            orders,
            kill,
            problems: Vec::new(),
            first_diff,
            workers,
        };
        report.judge(&broken);
        Ok(report)
    }

    fn judge(&mut self, broken: &[(String, String)]) {
        let mut problems = Vec::new();
        for order in self.orders.iter().filter(|order| order.status != "completed") {
            let words = order.error_message.as_deref().unwrap_or("no reason is recorded");
            problems.push(format!("order {} is {}: {words}", order.id, order.status));
        }
        let Counts { orders, branches, pull_requests, .. } = self.counts;
        for (count, what) in [(branches, "branches"), (pull_requests, "pull requests")] {
            if count != orders {
                problems.push(format!("{orders} orders, but {count} {what} in the repository"));
            }
        }
        problems.extend(broken.iter().map(|(rule, subject)| format!("{rule}: {subject}")));
        for order in &self.orders {
            let mut done = HashSet::new();
            for step in order.steps.iter().filter(|step| step.success) {
                if !done.insert(step.step.as_str()) {
                    problems.push(format!("order {} ran {} again", order.id, step.step));
                }
            }
        }
        if let Some(kill) = &self.kill {
            problems.extend(kill.problems());
        }
        self.problems = problems;
    }

    /// Prints the report to standard output.
    pub fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if json {
            serde_json::to_writer_pretty(&mut out, self)?;
            return writeln!(out);
        }
        out.write_all(super::summary::of(self).as_bytes())
    }
}

impl Kill {
    /// Why this death was not survived as promised.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for order in &self.orders {
            let id = &order.work_order_id;
            match (&order.interrupted_step, &order.resumed_step) {
                (_, None) => problems.push(format!("order {id} was not resumed")),
                (Some(died), Some(resumed)) if died != resumed => {
                    problems
                        .push(format!("order {id} died in {died} and was resumed at {resumed}"));
                }
                _ => {}
            }
        }
        if !self.orders.iter().any(|order| order.interrupted_step.as_deref() == Some("execute")) {
            problems.push("the kill interrupted no execute".to_owned());
        }
        problems
    }
}

/// The title in the file of a pull request.
fn title(url: &str) -> Option<String> {
    let text = fs::read_to_string(url.strip_prefix("file://")?).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("title: "))?;
    serde_json::from_str(line).ok()
}
