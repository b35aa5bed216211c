//! `/health`, `/livez` and `/readyz`: whether this worker can work, answered cheaply however often
//! it is asked.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use serde::Serialize;
use serde_json::{Value, json};

use super::{HttpState, recent::Recent};
use crate::{
    clock::Clock,
    config::{Config, check_runnable, find_program},
    disk::Level,
    lease::Pulse,
    store::{Store, WorkerCounts},
};

/// Longest time a health check waits for the database.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the database's answer counts.
const KEEP_DATABASE: Duration = Duration::from_secs(2);
/// How long the count of the workers counts.
const KEEP_WORKERS: Duration = Duration::from_secs(5);
/// How long what was found on the disk counts.
const KEEP_HOST: Duration = Duration::from_secs(30);

/// What the worker says about itself; sent by the part that runs the orders.
#[derive(Debug, Clone, Default)]
pub struct WorkerStatus {
    /// It takes no new orders: it was told to stop.
    pub draining: bool,
    /// When heartbeats last worked.
    pub pulse: Pulse,
    /// How many orders it runs.
    pub running: usize,
}

/// Whether something a worker needs is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Dependency {
    available: bool,
    /// Where it is, or why it is not there.
    #[serde(flatten)]
    detail: Detail,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Detail {
    Path(String),
    Error(String),
    #[serde(untagged)]
    None {},
}

/// What was found on this host.
#[derive(Debug, Clone)]
struct HostReport {
    claude: Dependency,
    git: Dependency,
    github: Dependency,
    /// What keeps orders from running, as sentences.
    problems: Vec<String>,
}

/// The checks and their last answers.
#[derive(Debug)]
pub(super) struct Checks {
    store: Store,
    config: Arc<Config>,
    clock: Clock,
    database: Recent<Option<String>>,
    workers: Recent<Option<WorkerCounts>>,
    host: Recent<HostReport>,
}

impl Checks {
    pub fn new(store: Store, config: Arc<Config>, clock: Clock) -> Self {
        let database = Recent::new(clock.clone(), KEEP_DATABASE);
        let workers = Recent::new(clock.clone(), KEEP_WORKERS);
        let host = Recent::new(clock.clone(), KEEP_HOST);
        Self { store, config, clock, database, workers, host }
    }

    /// Why the database cannot be used, or `None` when it answers.
    async fn database_problem(&self) -> Option<String> {
        let ask = async {
            tokio::select! {
                answer = self.store.ping() => answer.err().map(|error| error.to_string()),
                () = self.clock.sleep(PATIENCE) => Some("no answer within 2s".to_owned()),
            }
        };
        self.database.get(ask).await
    }

    /// The workers of all hosts; `None` when the database does not say.
    async fn worker_counts(&self) -> Option<WorkerCounts> {
        let ask = async {
            tokio::select! {
                counts = self.store.worker_counts() => counts.ok(),
                () = self.clock.sleep(PATIENCE) => None,
            }
        };
        self.workers.get(ask).await
    }

    async fn host_report(&self) -> HostReport {
        let config = self.config.clone();
        let look = async move {
            let report = tokio::task::spawn_blocking(move || look_at_host(&config)).await;
            report.unwrap_or_else(|error| {
                let missing = Dependency {
                    available: false,
                    detail: Detail::Error("the check failed".to_owned()),
                };
                let (claude, git) = (missing.clone(), missing.clone());
                HostReport { claude, git, github: missing, problems: vec![error.to_string()] }
            })
        };
        self.host.get(look).await
    }
}

fn look_at_host(config: &Config) -> HostReport {
    let find = |program: &Path| match find_program(program, &config.search_path) {
        Ok(path) => {
            Dependency { available: true, detail: Detail::Path(path.display().to_string()) }
        }
        Err(reason) => {
            let reason = format!("{:?} {reason}", program.display());
            Dependency { available: false, detail: Detail::Error(reason) }
        }
    };
    let git = find(Path::new("git"));
    let runnable = check_runnable(config).err().map_or_else(Vec::new, |found| found.0);
    let mut problems: Vec<String> = runnable.iter().map(ToString::to_string).collect();
    if !git.available {
        problems.push("git is not installed".to_owned());
    }
    HostReport {
        claude: find(&config.agent.claude.cli),
        git,
        // Shown because others ask for it; pull requests are opened without it.
        github: find(Path::new("gh")),
        problems,
    }
}

/// Why this worker claims nothing because of its heartbeats, as a sentence.
fn pulse_problem(state: &HttpState) -> Option<String> {
    let pulse = state.worker.borrow().pulse.clone();
    pulse.problem(state.clock.now(), state.config.queue.heartbeat)
}

/// Whether heartbeats have not been acknowledged for so long that agents are frozen.
fn is_fenced(state: &HttpState) -> bool {
    let acknowledged = state.worker.borrow().pulse.acknowledged;
    let age = |at| state.clock.now().saturating_duration_since(at);
    acknowledged.is_some_and(|at| age(at) >= state.config.queue.self_fence)
}

/// 200 `healthy` or `degraded`, 503 `unhealthy` when no order could run here.
pub(super) async fn health(State(state): State<HttpState>) -> impl IntoResponse {
    let host = state.checks.host_report().await;
    let database = state.checks.database_problem().await;
    let workers = match &database {
        None => state.checks.worker_counts().await,
        Some(_) => None,
    };
    let worker = state.worker.borrow().clone();
    let silent = pulse_problem(&state);
    let mut problems = host.problems;
    if let Some(problem) = &database {
        problems.push(format!("the database is not available: {problem}"));
    }
    let disk = state.disk.borrow().clone();
    let mut warnings = disk.problems();
    match silent {
        Some(sentence) if is_fenced(&state) => problems.push(sentence),
        sentence => warnings.extend(sentence),
    }
    let status = if !problems.is_empty() {
        "unhealthy"
    } else if worker.draining || !warnings.is_empty() || disk.level() > Level::Ample {
        "degraded"
    } else {
        "healthy"
    };
    let detail = database.map_or(Detail::None {}, Detail::Error);
    let database = Dependency { available: matches!(detail, Detail::None {}), detail };
    let code = if status == "unhealthy" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let agent = state.config.agent.kind.as_str();
    let body: Value = json!({
        "status": status,
        "service": "agent-work-orders",
        "version": env!("CARGO_PKG_VERSION"),
        "enabled": state.config.http.enabled,
        "dependencies": {
            "claude_cli": host.claude,
            "git": host.git,
            "github_cli": host.github,
            "database": database,
        },
        "storage_type": "postgres",
        "agent": agent,
        "isolation": state.isolation.as_deref(),
        "problems": problems,
        "warnings": warnings,
        "volumes": disk.volumes,
        "worker": { "draining": worker.draining, "running": worker.running },
        "workers": workers,
    });
    (code, Json(body))
}

/// 200 while the process answers at all.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// 200 while the worker takes orders.
pub(super) async fn readyz(State(state): State<HttpState>) -> impl IntoResponse {
    if state.worker.borrow().draining {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    if pulse_problem(&state).is_some() {
        let words = "heartbeats are not acknowledged: no orders are claimed\n";
        return (StatusCode::SERVICE_UNAVAILABLE, words);
    }
    if state.checks.database_problem().await.is_some() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the database is not available\n");
    }
    match state.disk.borrow().level() {
        Level::Closed => {
            let words = "a volume is closed to the worker: /health says which\n";
            return (StatusCode::SERVICE_UNAVAILABLE, words);
        }
        Level::Full => return (StatusCode::SERVICE_UNAVAILABLE, "a volume is full\n"),
        Level::Low | Level::Ample => {}
    }
    (StatusCode::OK, "ok\n")
}
