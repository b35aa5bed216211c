//! What is shown while the orders run: bars on a terminal, lines elsewhere.

use std::{
    collections::HashMap,
    fmt::Display,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Instant;
use uuid::Uuid;

/// An order as the database shows it; a row of `sql/demo/progress.sql`.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Standing {
    pub id: String,
    pub status: String,
    pub phase: Option<String>,
    pub steps: i32,
    pub finished: i64,
    pub worker_id: Option<Uuid>,
    pub crash_count: i32,
    pub error_message: Option<String>,
}

impl Standing {
    /// Whether nothing more will happen to it.
    pub fn has_ended(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed" | "cancelled")
    }

    fn describe(&self, worker: &str) -> String {
        match self.status.as_str() {
            "pending" if self.crash_count > 0 => "waits for another replica".to_owned(),
            "pending" => "waits".to_owned(),
            "running" => {
                let step = self.phase.as_deref().unwrap_or("starts");
                let resumed = if self.crash_count > 0 { ", resumed" } else { "" };
                format!("{step} on {worker}{resumed}")
            }
            status => match &self.error_message {
                Some(message) => format!("{status}: {message}"),
                None => status.to_owned(),
            },
        }
    }
}

/// Tells the story. Results go to standard output; with `--json` the story goes to standard error.
pub struct Narrator {
    began: Instant,
    quiet: bool,
    bars: Option<MultiProgress>,
    orders: HashMap<String, (ProgressBar, Standing)>,
}

impl Narrator {
    /// Starts the clock.
    pub fn new(began: Instant, json: bool) -> Self {
        let terminal = io::stderr().is_terminal() && io::stdout().is_terminal();
        let bars = (terminal && !json).then(MultiProgress::new);
        Self { began, quiet: json, bars, orders: HashMap::new() }
    }

    /// Prints a line with the time since the start. A reader who went away is no reason to stop:
    /// there is still a server to take down.
    pub fn say(&self, now: Instant, line: impl Display) {
        let text = format!("{:6.1} s  {line}", (now - self.began).as_secs_f64());
        self.line(&text);
    }

    /// Prints a line as it is.
    pub fn line(&self, text: &str) {
        let print = || {
            if self.quiet {
                writeln!(io::stderr(), "{text}")
            } else {
                writeln!(io::stdout(), "{text}")
            }
        };
        let _ = match &self.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        };
    }

    /// Shows where an order is, if that changed. `worker` is who holds it.
    pub fn show(&mut self, now: Instant, standing: &Standing, worker: &str) {
        let known = self.orders.get(&standing.id);
        if known.is_some_and(|(_, before)| before == standing) {
            return;
        }
        let words = standing.describe(worker);
        let bar = known.map_or_else(|| self.bar(standing), |(bar, _)| bar.clone());
        let moved = known.is_none_or(|(_, before)| {
            (&before.status, &before.phase, before.worker_id)
                != (&standing.status, &standing.phase, standing.worker_id)
        });
        if self.bars.is_some() {
            bar.set_position(u64::try_from(standing.finished).unwrap_or_default());
            if standing.has_ended() {
                bar.finish_with_message(words);
            } else {
                bar.set_message(words);
            }
        } else if moved {
            let (finished, steps) = (standing.finished, standing.steps);
            self.say(now, format_args!("{}  {finished}/{steps}  {words}", standing.id));
        }
        self.orders.insert(standing.id.clone(), (bar, standing.clone()));
    }

    fn bar(&self, standing: &Standing) -> ProgressBar {
        let Some(bars) = &self.bars else { return ProgressBar::hidden() };
        let bar = ProgressBar::new(u64::try_from(standing.steps).unwrap_or_default());
        let style = ProgressStyle::with_template("{prefix}  {bar:18} {pos}/{len}  {msg}");
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let bar = bars.add(bar.with_prefix(standing.id.clone()));
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}
