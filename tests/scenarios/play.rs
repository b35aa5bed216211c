//! Plays a scenario: a real worker with a real CLI, a database and a remote of its own, and the fake
//! model.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::PgPool;

use crate::{
    claude_cli::claude_cli_version,
    director::{Kinds, director},
    format::{Act, Deed, Scenario},
    harness::Harness,
    messages_api::MessagesApi,
};

/// The id of the order, so that the sandbox is known beforehand.
pub const ORDER: &str = "wo-5ce0a210";
/// No real key has this form.
const KEY: &str = "sk-fake-key-of-the-scenarios-0123456789";
/// A model whose price both versions of the CLI know.
pub const MODEL: &str = "claude-sonnet-4-5-20250929";
/// Between two looks.
const BETWEEN: Duration = Duration::from_millis(50);

/// A scenario that is played.
pub struct Play {
    pub harness: Harness,
    pub api: MessagesApi,
    pub kinds: Kinds,
    worker: u32,
}

impl Play {
    /// Prepares everything up to the order itself.
    pub async fn prepare(scenario: &Scenario, version: &str, pool: PgPool) -> Self {
        let mut harness = Harness::new(pool);
        seed(&harness, scenario);
        let checkout = harness.path(&format!("repositories/{ORDER}/remote"));
        let (director, kinds) = director(scenario, checkout);
        let api = MessagesApi::directed(director).await;
        harness.set("AWO_AGENT", "claude");
        harness.set("CLAUDE_CLI_MODEL", MODEL);
        harness.set("ANTHROPIC_BASE_URL", api.url.clone());
        if scenario.key {
            harness.set("ANTHROPIC_API_KEY", KEY);
        }
        let cli = claude_cli_version(version);
        let called = if scenario.cli_env.is_empty() {
            cli
        } else {
            let folder = cli.parent().unwrap().display().to_string();
            harness.set("AWO_AGENT_READ_PATHS", folder);
            wrapped(&harness, scenario, &cli)
        };
        harness.set("CLAUDE_CLI_PATH", called.display().to_string());
        for (name, value) in &scenario.settings {
            harness.set(name, value.0.clone());
        }
        if scenario.trusted {
            sqlx::query("select awo_set_repository_policy($1, '{\"trusted\": true}')")
                .bind(harness.remote_url())
                .execute(&harness.pool)
                .await
                .unwrap();
        }
        let worker = harness.start_worker();
        Self { harness, api, kinds, worker }
    }

    /// Plays it to the end of the order, or for ever. An error is what cannot be done.
    pub async fn run(&mut self, scenario: &Scenario) -> Result<(), String> {
        self.harness.order_named(ORDER, &scenario.request, &scenario.steps).await;
        for act in &scenario.acts {
            while !self.has_come(act).await {
                tokio::time::sleep(BETWEEN).await;
            }
            self.act(act).await?;
        }
        while !matches!(self.status().await.as_str(), "completed" | "failed" | "cancelled") {
            tokio::time::sleep(BETWEEN).await;
        }
        Ok(())
    }

    async fn status(&self) -> String {
        sqlx::query_scalar("select status from agent_work_orders")
            .fetch_one(&self.harness.pool)
            .await
            .unwrap()
    }

    /// Whether the moment of an act is there: all that it names is so.
    async fn has_come(&self, act: &Act) -> bool {
        let asked = self.kinds.lock().unwrap().clone();
        let served = self.api.served();
        let count = |kind: &str, complete: bool| {
            let of_kind = asked.iter().zip(&served).filter(|(asked, _)| *asked == kind);
            of_kind.filter(|(_, served)| served.is_complete || !complete).count()
        };
        let enough = |kind: &Option<String>, complete: bool| {
            kind.as_ref().is_none_or(|kind| count(kind, complete) >= act.times)
        };
        if !enough(&act.asked, false) || !enough(&act.answered, true) {
            return false;
        }
        if let Some(file) = &act.file
            && !self.harness.path(&format!("repositories/{ORDER}/remote/{file}")).exists()
        {
            return false;
        }
        if let Some(status) = &act.status
            && self.status().await != *status
        {
            return false;
        }
        let (class, event) = (act.class.as_deref(), act.event.as_deref());
        sqlx::query_scalar(
            "select ($1::text is null or exists (
                        select from agent_work_order_steps where error_class = $1))
                and ($2::text is null or exists (
                        select from awo.log_chunks
                        where stream = 'event' and convert_from(data, 'UTF8') like '%\"' || $2 || '\"%'))",
        )
        .bind(class)
        .bind(event)
        .fetch_one(&self.harness.pool)
        .await
        .unwrap()
    }

    async fn act(&mut self, act: &Act) -> Result<(), String> {
        let words = act.words.as_deref().unwrap_or("Say it again");
        match act.deed {
            Deed::Cancel => self.say(&["cancel", ORDER])?,
            Deed::Prompt => self.say(&["prompt", ORDER, words])?,
            Deed::Requeue => match &act.from {
                Some(step) => self.say(&["requeue", ORDER, "--from-step", step])?,
                None => self.say(&["requeue", ORDER])?,
            },
            Deed::Drain => {
                self.harness.signal(self.worker, Signal::SIGTERM);
                self.harness.ended(self.worker).await;
                self.worker = self.harness.start_worker();
            }
            Deed::Kill => {
                self.harness.signal(self.worker, Signal::SIGKILL);
                self.harness.ended(self.worker).await;
                self.worker = self.harness.start_worker();
            }
            Deed::KillCli => self.signal_cli(Signal::SIGKILL),
            Deed::InterruptCli => self.signal_cli(Signal::SIGINT),
            Deed::Pause => {
                self.harness.signal(self.worker, Signal::SIGSTOP);
                tokio::time::sleep(act.lasts.map_or(Duration::from_secs(2), |time| time.0)).await;
                self.harness.signal(self.worker, Signal::SIGCONT);
            }
        }
        Ok(())
    }

    fn signal_cli(&self, signal: Signal) {
        for pid in processes(self.harness.folder(), is_cli) {
            kill(Pid::from_raw(pid), signal).unwrap();
        }
    }

    fn say(&self, words: &[&str]) -> Result<(), String> {
        let (code, said) = self.harness.command(words);
        if code == Some(0) { Ok(()) } else { Err(format!("archon-awo {words:?}: {said}")) }
    }

    /// The processes of agents that are there although nothing runs any more.
    pub async fn left_behind(&self) -> Vec<i32> {
        let start = Instant::now();
        loop {
            let left = processes(self.harness.folder(), |_| true);
            if left.is_empty() || start.elapsed() > Duration::from_secs(10) {
                return left;
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }
}

/// Puts the files of the scenario into the repository.
fn seed(harness: &Harness, scenario: &Scenario) {
    if scenario.repository.is_empty() {
        return;
    }
    for (name, content) in &scenario.repository {
        let path = harness.path("seed").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        if content.starts_with("#!") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    harness.git(&["-C", "seed", "add", "--all", "--force"]);
    harness.git(&["-C", "seed", "commit", "--quiet", "--message=Files of the scenario"]);
    harness.git(&["-C", "seed", "push", "--quiet", "origin", "main"]);
}

/// The CLI behind a script that changes its environment.
fn wrapped(harness: &Harness, scenario: &Scenario, cli: &Path) -> PathBuf {
    let variables = scenario.cli_env.iter().map(|(name, value)| match value {
        Some(value) => format!("export {name}={}\n", shell_words::quote(&value.0)),
        None => format!("unset {name}\n"),
    });
    let (variables, cli) = (variables.collect::<String>(), cli.display().to_string());
    let script = format!("#!/bin/sh\n{variables}exec {} \"$@\"\n", shell_words::quote(&cli));
    let path = harness.path("agent/claude-of-the-scenario");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Processes of agents in a place, found by the environment that they inherit.
fn processes(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<i32> {
    let folder = folder.as_os_str().as_encoded_bytes();
    let is_of_agent = |path: &Path| {
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        let has = |words: &[u8]| environment.windows(words.len()).any(|part| part == words);
        has(folder) && has(b"AWO_RUN_ID=")
    };
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let processes = entries.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        (is_of_agent(&entry.path()) && wanted(&entry.path())).then_some(pid)
    });
    processes.collect()
}

/// Whether a process is the CLI itself, and neither its shim nor one of its tools.
fn is_cli(process: &Path) -> bool {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0);
    words.next().is_some_and(|program| program.ends_with(b"/claude"))
        && words.any(|word| word == b"--output-format=stream-json")
}
