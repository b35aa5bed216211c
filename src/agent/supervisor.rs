//! Supervises one run from the worker's side: starts the shim, tells it about the lease, reads
//! what the agent says, and ends the run when its time, its silence or somebody says so.

mod again;
mod beside_lines;
mod conclude;
mod lost_shim;
mod output_file;
mod shim_process;
mod streams;
mod watch_over;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    adopted,
    isolation::{Confinement, Isolation},
    kind::AgentKind,
    launch::Launch,
    pump::Progress,
    report::{AgentReport, Failure},
    request::{AgentRequest, LeaseSignal, OutputChunk},
    setting_names::SettingNames,
    shim::ShimArguments,
    verdict::Intervention,
};
use crate::{
    clock::Clock,
    config::{Config, Freezer, IsolationConfig},
    disk::{DiskSpace, SystemDisk},
    domain::{ErrorClass, Redactor},
};
use again::Start;
use beside_lines::note_conversation;
use conclude::{Attempt, conclude, refused};
use lost_shim::LostShim;
use shim_process::ShimProcess;
use streams::Spools;
pub use streams::deliver_rest;
use watch_over::WatchOver;

/// How an agent is ended. The sum stays below the 15 s in which a cancelled order is promised to
/// have no process left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KillPlan {
    /// From SIGINT to SIGTERM.
    pub interrupt: Duration,
    /// From SIGTERM to SIGKILL.
    pub terminate: Duration,
}

impl Default for KillPlan {
    fn default() -> Self {
        Self { interrupt: Duration::from_secs(4), terminate: Duration::from_secs(5) }
    }
}

/// What a run may take at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of output that are kept, for each of the two streams.
    pub spool: u64,
    /// How long to wait for an earlier run in the same sandbox to end.
    pub lock_wait: Duration,
    /// How long an agent may stay frozen before it is killed.
    pub longest_freeze: Duration,
    /// How long an agent may take to exit after its result line, once nothing of it runs.
    pub exit_grace: Duration,
    /// How long the consumer of the output may take for the rest after the end of the run.
    pub delivery: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            spool: 256 * 1024 * 1024,
            lock_wait: Duration::from_secs(20),
            longest_freeze: Duration::from_mins(15),
            exit_grace: Duration::from_secs(10),
            delivery: Duration::from_secs(30),
        }
    }
}

/// Runs agents. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Supervisor {
    shim: PathBuf,
    redactor: Redactor,
    clock: Clock,
    kill_plan: KillPlan,
    limits: Limits,
    freezer: Freezer,
    isolation: IsolationConfig,
    reached: watch::Sender<Option<Isolation>>,
    heard: watch::Sender<()>,
}

impl Supervisor {
    /// A supervisor whose shim is the program `shim` (this very binary), called with `shim` as its
    /// first argument.
    pub fn new(
        shim: impl Into<PathBuf>,
        redactor: Redactor,
        clock: Clock,
        kill_plan: KillPlan,
    ) -> Self {
        let (shim, limits) = (shim.into(), Limits::default());
        let (freezer, isolation) = (Freezer::Auto, IsolationConfig::default());
        let (reached, heard) = (watch::Sender::default(), watch::Sender::default());
        Self { shim, redactor, clock, kill_plan, limits, freezer, isolation, reached, heard }
    }

    /// A supervisor as the settings of this process want it; `shim` is this very binary.
    pub fn configured(
        config: &Config,
        shim: impl Into<PathBuf>,
        redactor: Redactor,
        clock: Clock,
    ) -> Self {
        Self::new(shim, redactor, clock, KillPlan::default())
            .with_freezer(config.agent.freezer)
            .with_isolation(config.agent.isolation.clone())
    }

    /// The same, which tells `reached` how far an agent is shut in as soon as it runs.
    #[must_use]
    pub fn telling(mut self, reached: watch::Sender<Option<Isolation>>) -> Self {
        self.reached = reached;
        self
    }

    /// The same, which tells `heard` of every sign of life, also of one that is not stored.
    #[must_use]
    pub fn heard_by(mut self, heard: watch::Sender<()>) -> Self {
        self.heard = heard;
        self
    }

    /// The same with agents that are shut in this far.
    #[must_use]
    pub fn with_isolation(mut self, isolation: IsolationConfig) -> Self {
        self.isolation = isolation;
        self
    }

    /// The same for an order with secrets of its own.
    #[must_use]
    pub fn with_redactor(mut self, redactor: Redactor) -> Self {
        self.redactor = redactor;
        self
    }

    /// The same with agents that are frozen in this way.
    #[must_use]
    pub fn with_freezer(mut self, freezer: Freezer) -> Self {
        self.freezer = freezer;
        self
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Runs an agent to its end and returns when no process of it is left.
    ///
    /// `lease` must say `Held` with a deadline in the future before the agent is started; its
    /// closing means that the lease is lost. `cancel` asks the agent to end. Dropping the future
    /// ends the agent's processes too. Nobody needs to read `output`: what is not taken is in the
    /// spool files.
    #[tracing::instrument(name = "agent.run", skip_all, fields(
        work_order.id = %request.order, step = %request.step, attempt = request.attempt,
        run.id = %request.run_id,
    ))]
    pub async fn run(
        &self,
        agent: &AgentKind,
        request: AgentRequest,
        lease: watch::Receiver<LeaseSignal>,
        cancel: CancellationToken,
        output: mpsc::Sender<OutputChunk>,
    ) -> AgentReport {
        let began = self.clock.now();
        let channels = Channels { lease, cancel, output };
        let mut start = Start::default();
        let mut last = self.attempt(agent, &request, &start, &channels).await;
        while let Some(next) = last.as_ref().ok().and_then(|attempt| start.after(attempt)) {
            start = next;
            last = self.attempt(agent, &request, &start, &channels).await;
        }
        let mut report = last.map_or_else(refused, |attempt| attempt.report);
        report.duration = self.clock.now() - began;
        if let Err(failure) = &report.verdict {
            tracing::info!(class = %failure.class, message = failure.message, "the agent failed");
        }
        report
    }

    /// Has what a dead run was given in a sandbox belong to this process again: where each run has a user of
    /// its own, nothing can be done with the files before. Fine when there is nothing, or somebody is at work.
    pub async fn take_back(&self, sandbox: &Path) {
        let Some(users) = self.isolation.users.clone() else { return };
        let root = sandbox.to_owned();
        let taken = tokio::task::spawn_blocking(move || users.reclaim(Some(&root))).await;
        match taken {
            Ok(Ok(0)) => {}
            Ok(Ok(_)) => {
                tracing::info!(sandbox = %sandbox.display(), "took back what a dead run had");
            }
            Ok(Err(error)) => tracing::warn!(sandbox = %sandbox.display(), "{error}"),
            Err(error) => tracing::warn!(sandbox = %sandbox.display(), "{error}"),
        }
    }

    /// Starts the agent once.
    async fn attempt(
        &self,
        agent: &AgentKind,
        request: &AgentRequest,
        start: &Start,
        channels: &Channels,
    ) -> Result<Attempt, Failure> {
        let (launch, arguments, oom_kills_before) = self.prepare(agent, request, start).await?;
        let redactor = self.redactor.with(agent.secrets());
        let spools = Spools::open(&request.spool, start.before, self.limits.spool).await?;
        let backlog = self.limits.spool;
        let (mut shim, mut pipes) = ShimProcess::start(
            &self.shim, &arguments, &launch, request, backlog,
        )
        .map_err(|error| {
            let shim = self.shim.display();
            let message = format!("the supervising process {shim} did not start: {error}");
            Failure::new(ErrorClass::LostWorker, message)
        })?;
        let prompt = pipes.feed(request.prompt.clone());
        let progress = watch::Sender::new(Progress::starting(self.clock.now()));
        let output = channels.output.clone();
        let (told, clock) = ((&progress, &self.heard), &self.clock);
        let streams = spools.start(pipes, launch.preset, &redactor, told, clock, output);
        let mut ended = WatchOver::new(self, request, progress, channels.lease.clone())
            .until_the_end(&mut shim, &channels.cancel)
            .await;
        prompt.abort();
        if ended.tree_empty_after.is_none() && ended.problem.is_none() {
            // Whatever was said and done before: nobody knows what ran after it.
            ended.intervention = Some(Intervention::ShimLost);
            clear(request).await;
        }
        self.take_back(&request.sandbox_root).await;
        // Nobody waits for it: what it collects has ended.
        drop(tokio::task::spawn_blocking(adopted::bury));
        let drained = streams.end(self.limits.delivery).await;
        note_conversation(&launch, request, drained.stdout.own_name.clone()).await;
        // Without a cgroup that counts, a kill anywhere on the host may have been this one.
        let out_of_memory = if let Some(killed) = ended.out_of_memory {
            killed
        } else {
            let now = tokio::task::spawn_blocking(oom_kills).await;
            now.is_ok_and(|now| now > oom_kills_before)
        };
        let disk_full = drained.stdout.disk_full
            || drained.stderr.disk_full
            || is_full(request.sandbox_root.clone()).await;
        let names = SettingNames::of(agent);
        Ok(conclude(&launch, names, &redactor, &ended, &drained, out_of_memory, disk_full))
    }

    /// Looks for the program and makes the folders of the run, away from the runtime's threads; the
    /// last is how many processes the kernel has killed for memory by now.
    async fn prepare(
        &self,
        agent: &AgentKind,
        request: &AgentRequest,
        start: &Start,
    ) -> Result<(Launch, ShimArguments, u64), Failure> {
        let (this, agent, request) = (self.clone(), agent.clone(), request.clone());
        let Start { afresh, without, .. } = start.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            let mut launch = agent.prepare(&request, !afresh)?;
            launch.arguments.retain(|argument| !without.contains(&argument.as_str()));
            let arguments = this.shim_arguments(&request, &launch)?;
            Ok((launch, arguments, oom_kills()))
        });
        let ended = |error| {
            Failure::new(ErrorClass::LostWorker, format!("the run was not prepared: {error}"))
        };
        prepared.await.unwrap_or_else(|error| Err(ended(error)))
    }

    fn shim_arguments(
        &self,
        request: &AgentRequest,
        launch: &Launch,
    ) -> Result<ShimArguments, Failure> {
        let mut confinement = Confinement::of(&self.isolation)
            .map_err(|message| Failure::new(ErrorClass::Invalid, message))?;
        let places = &mut confinement.places;
        // Files that the administrator's command names: the script of an interpreter.
        let named = launch.arguments.iter().map(PathBuf::from);
        places.programs = vec![launch.program.clone()];
        places.programs.extend(named.filter(|path| path.is_absolute() && path.is_file()));
        let path = launch.environment.iter().rfind(|(name, _)| name == "PATH");
        places.search_path = path.map(|(_, path)| path.clone()).unwrap_or_default();
        places.own = vec![request.checkout.clone(), request.home.clone(), request.tmp.clone()];
        places.read.extend(request.objects.iter().cloned());
        Ok(ShimArguments {
            confinement,
            run_id: request.run_id.to_string(),
            sandbox_root: request.sandbox_root.clone(),
            lock_wait: self.limits.lock_wait,
            interrupt_grace: self.kill_plan.interrupt,
            terminate_grace: self.kill_plan.terminate,
            longest_freeze: self.limits.longest_freeze,
            freezer: self.freezer,
            program: launch.program.clone().into_os_string(),
            arguments: launch.arguments.iter().map(OsString::from).collect(),
        })
    }
}

/// Does the last work of a shim that was killed.
async fn clear(request: &AgentRequest) {
    let lost = LostShim::of(request);
    let cleared = tokio::task::spawn_blocking(move || lost.clear());
    if !cleared.await.unwrap_or_default() {
        tracing::error!(
            run.id = %request.run_id,
            "processes of an agent could not be killed: its sandbox stays locked until they are gone"
        );
    }
}

/// The channels of a run, which all of its starts use.
struct Channels {
    lease: watch::Receiver<LeaseSignal>,
    cancel: CancellationToken,
    output: mpsc::Sender<OutputChunk>,
}

/// Whether next to nothing can be written to the volume of a folder.
async fn is_full(folder: PathBuf) -> bool {
    let look = move || SystemDisk.space(&folder).is_ok_and(|space| space.is_full());
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

/// How many processes the kernel has killed for memory since it started; 0 where it does not say.
fn oom_kills() -> u64 {
    let counters = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let counter = counters.lines().find_map(|line| line.strip_prefix("oom_kill "));
    counter.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}
