//! A sandbox in a temporary folder, a supervisor over the real binary, and a look at the processes
//! that a run leaves behind.

use std::{fs, future::Future, path::Path, time::Duration};

use archon_awo::{
    agent::{
        AgentKind, AgentReport, AgentRequest, KillPlan, LeaseSignal, Limits, OutputChunk,
        Supervisor,
    },
    clock::{Clock, boot_time},
    config::{Freezer, IsolationConfig},
    domain::{Redactor, StepName, Task},
};
use clap::ValueEnum;
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A kill plan that lets tests of stubborn programs end soon.
pub const QUICK: KillPlan =
    KillPlan { interrupt: Duration::from_millis(300), terminate: Duration::from_millis(300) };

/// One sandbox and the channels of its runs.
pub struct Bench {
    _folder: TempDir,
    pub redactor: Redactor,
    pub kill_plan: KillPlan,
    pub freezer: Freezer,
    /// How far agents are shut in.
    pub isolation: IsolationConfig,
    pub limits: Limits,
    pub lease: watch::Sender<LeaseSignal>,
    pub cancel: CancellationToken,
    pub request: AgentRequest,
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("checkout")).unwrap();
        let request = AgentRequest {
            order: "wo-test".parse().unwrap(),
            step: StepName::Execute,
            task: Task::Change,
            attempt: 1,
            run_id: Uuid::new_v4(),
            checkout: root.join("checkout"),
            sandbox_root: root.clone(),
            home: root.join("home"),
            tmp: root.join("tmp"),
            renew: false,
            objects: Vec::new(),
            trusted: false,
            unguided: false,
            prompt: "do it".to_owned(),
            session: Uuid::new_v4(),
            resume: false,
            hard_timeout: Duration::from_mins(1),
            idle_timeout: Duration::from_mins(1),
            spool: root.join("spool.ndjson"),
            extra_env: Vec::new(),
        };
        let until = boot_time() + Duration::from_mins(10);
        Self {
            _folder: folder,
            redactor: Redactor::default(),
            kill_plan: QUICK,
            freezer: forced_freezer().unwrap_or(Freezer::Auto),
            // What the scripted agents tell the tests lies beside their checkouts.
            isolation: IsolationConfig {
                write_paths: vec![root.clone()],
                ..IsolationConfig::default()
            },
            limits: Limits::default(),
            lease: watch::Sender::new(LeaseSignal::Held { until }),
            cancel: CancellationToken::new(),
            request,
        }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.request.sandbox_root.join(name)
    }

    pub fn supervisor(&self) -> Supervisor {
        let shim = env!("CARGO_BIN_EXE_archon-awo");
        Supervisor::new(shim, self.redactor.clone(), Clock::system(), self.kill_plan)
            .with_limits(self.limits)
            .with_freezer(self.freezer)
            .with_isolation(self.isolation.clone())
    }

    /// Starts a run in the background and hands out its output.
    pub fn start(
        &self,
        agent: AgentKind,
    ) -> (JoinHandle<AgentReport>, mpsc::Receiver<OutputChunk>) {
        let (sender, receiver) = mpsc::channel(8);
        let (supervisor, request) = (self.supervisor(), self.request.clone());
        let (lease, cancel) = (self.lease.subscribe(), self.cancel.clone());
        let run = async move { supervisor.run(&agent, request, lease, cancel, sender).await };
        (tokio::spawn(run), receiver)
    }

    /// Runs an agent to its end and collects its output.
    pub async fn run(&self, agent: AgentKind) -> (AgentReport, Vec<OutputChunk>) {
        let (run, mut receiver) = self.start(agent);
        let mut chunks = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            chunks.push(chunk);
        }
        (run.await.unwrap(), chunks)
    }

    /// The processes of this run, as `(pid, state)`, ended ones left out.
    pub fn processes(&self) -> Vec<(i32, char)> {
        marked(&format!("AWO_RUN_ID={}", self.request.run_id))
    }

    /// ... without the shim.
    pub fn agents(&self) -> Vec<(i32, char)> {
        let is_shim = |pid: i32| arguments(pid).get(1).is_some_and(|word| word == "shim");
        self.processes().into_iter().filter(|(pid, _)| !is_shim(*pid)).collect()
    }
}

/// What holds agents in every test that does not choose: `AWO_TEST_FREEZER`, to run them all in each way.
#[expect(clippy::disallowed_methods, reason = "not a setting of the product")]
fn forced_freezer() -> Option<Freezer> {
    let word = std::env::var("AWO_TEST_FREEZER").ok()?;
    Some(Freezer::from_str(&word, true).unwrap())
}

/// The command line of a process.
pub fn arguments(pid: i32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The living processes with this entry in their environment, and the shim whose environment only
/// root may read but whose arguments hold the entry's value.
pub fn marked(marker: &str) -> Vec<(i32, char)> {
    let value = marker.split_once('=').map_or(marker, |(_, value)| value);
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        entry.unwrap().file_name().to_str().and_then(|name| name.parse::<i32>().ok())
    });
    pids.filter(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|entry| entry == marker.as_bytes())
            || arguments(*pid).get(2).is_some_and(|word| word == value)
    })
    .filter_map(|pid| Some((pid, state(pid)?)))
    .filter(|(_, state)| *state != 'Z')
    .collect()
}

/// The state letter of a process; `None` when it is gone.
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim().chars().next()
}

/// Waits until `ready` holds, at most 15 s.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut ready: impl FnMut() -> F) {
    let wait = async {
        while !ready().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(15), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Waits until a file holds something, and returns it.
pub async fn content(file: &Path) -> String {
    let read = || fs::read_to_string(file).unwrap_or_default();
    eventually(&format!("{} is written", file.display()), || async { read().ends_with('\n') })
        .await;
    read().trim().to_owned()
}
