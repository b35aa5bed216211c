//! Runs a work order: the chosen steps in order, each committed as it ends and never run again.
//!
//! The runner owns git and the forge; the model only writes text and files.

mod adverts;
mod agent_environment;
mod agent_runs;
mod answer;
mod attempt;
mod delivered;
mod dossier;
mod earlier_work;
mod ended_runs;
mod failure;
mod follow_branch;
mod interrupts;
mod journal;
mod keep;
pub mod message;
mod order;
mod order_run;
mod plain_text;
mod ports;
pub mod prompts;
mod proof;
pub mod pull_request_text;
pub mod quota;
mod recover;
pub mod review;
mod set_aside;
mod steps;
pub mod trial;
mod turn;
mod undo;
mod unused_words;
mod words;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use secrecy::SecretString;

use crate::{
    agent::{AgentKind, Supervisor},
    archive::Archive,
    backoff::Backoff,
    clock::Clock,
    domain::{Credentials, Redactor, RemoteRules},
    forge::ForgeSettings,
    git::Git,
    lease::Lease,
    ports::PortPool,
    store::{Claimed, Settlement, Store},
    telemetry::Metrics,
};
use prompts::CommandFiles;
use quota::Quota;

/// Longest text that is stored in a column of a row, in bytes; files have all of it.
const TEXT_LIMIT: usize = 64 * 1024;

/// How orders are run.
#[derive(Debug, Clone)]
pub struct WorkflowSettings {
    /// Which repositories may be named.
    pub remotes: RemoteRules,
    /// What opens git remotes.
    pub credentials: Credentials,
    /// What opens GitHub's API, for repositories on its host.
    pub github_token: Option<SecretString>,
    /// Which agent works.
    pub agent: AgentKind,
    /// Longest time one run of an agent may take.
    pub timeout: Duration,
    /// Longest silence of an agent.
    pub idle_timeout: Duration,
    /// How often the blockers of a review are handed back.
    pub review_rounds: u32,
    /// Wait before another attempt.
    pub backoff: Backoff,
    /// For how long an order waits out what fails outside of it.
    pub retry_for: Duration,
    /// Where prompts and outputs are kept (`AWO_WORK_ORDER_DIR`).
    pub work_orders: PathBuf,
    /// The most a sandbox may take on disk.
    pub quota: Option<Quota>,
    /// The ports that running orders get.
    pub ports: Option<PortPool>,
    /// `PATH` of the agent.
    pub search_path: String,
    /// `AWO_AGENT_PROXY`.
    pub proxy: Option<String>,
    /// Whether they are told its number instead of its name.
    pub proxy_by_number: bool,
    /// What every agent gets as credentials, by the names of their variables.
    pub agent_credentials: Vec<(String, SecretString)>,
    /// The worker's variables that repositories may ask for.
    pub inheritable: BTreeMap<String, String>,
}

/// Everything it takes to run orders; one per worker. Cheap to clone, next to running an order.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// How orders are run.
    pub settings: WorkflowSettings,
    /// The database.
    pub store: Store,
    /// Caches and sandboxes.
    pub git: Git,
    /// Where sandboxes were archived.
    pub archive: Option<Archive>,
    /// Pull requests.
    pub forge: ForgeSettings,
    /// Prompts.
    pub commands: CommandFiles,
    /// Runs agents.
    pub supervisor: Supervisor,
    /// Keeps secrets out of what is stored.
    pub redactor: Redactor,
    /// Time and randomness.
    pub clock: Clock,
    /// Counters.
    pub metrics: Metrics,
}

impl Workflow {
    /// Runs one claimed order to an outcome. It never fails: every failure is an outcome.
    pub async fn run(&self, job: &Claimed, lease: &Lease) -> Settlement {
        attempt::run(self, job, lease).await
    }

    /// A text as it may be stored: no secrets, no NUL, not endless.
    pub(crate) fn clean(&self, text: &str) -> String {
        let text = self.redactor.text(text).replace('\0', "\u{fffd}");
        let end = text.floor_char_boundary(TEXT_LIMIT);
        if end == text.len() { text } else { format!("{}\n[cut]", &text[..end]) }
    }

    /// The name stored with steps that the agent does.
    pub(crate) fn agent_name(&self) -> &'static str {
        self.settings.agent.name()
    }
}
