//! Worker replicas: real processes of the program, each with its own way to Postgres, replaced when
//! they end.

use std::{
    ffi::OsStr,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::Child,
    sync::{Mutex, MutexGuard},
};

use crate::{cluster, proxy::Proxy, volume::Volume};

/// Longest time a worker may take to end after SIGTERM: its drain, and ten times as much.
const LONGEST_DRAIN: Duration = Duration::from_secs(90);

/// What all replicas are started with.
pub struct Blueprint {
    pub folder: PathBuf,
    pub volume: Arc<Volume>,
    pub agent_command: String,
    pub settings: Vec<(String, String)>,
}

/// A worker that was killed, and when.
#[derive(Debug, Clone, Copy)]
pub struct Killed {
    pub pid: u32,
    /// Seconds of the wall clock, which is the database's too.
    pub at: f64,
}

/// The place of a replica: the processes in it come and go.
pub struct Replica {
    pub proxy: Proxy,
    blueprint: Arc<Blueprint>,
    number: usize,
    /// Held by whoever makes the process go away and come back.
    process: Mutex<Process>,
}

/// The process that is there now.
#[derive(Default)]
pub struct Process {
    child: Option<Child>,
    started: usize,
    /// Of all processes that were here.
    pub pids: Vec<u32>,
    pub killed: Vec<Killed>,
    /// Ends that nobody had asked for, in words.
    pub unasked: Vec<String>,
    /// Drains that took too long.
    pub overdue: usize,
}

impl Replica {
    pub fn new(blueprint: Arc<Blueprint>, number: usize, proxy: Proxy) -> Self {
        Self { proxy, blueprint, number, process: Mutex::default() }
    }

    pub async fn start(&self) -> anyhow::Result<()> {
        self.spawn(&mut *self.process.lock().await)
    }

    /// Its process, for whoever wants to do something to it alone.
    pub async fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().await
    }

    /// Starts another process when the one that was there has ended by itself, as any supervisor
    /// of services does.
    pub fn keep(&self) -> anyhow::Result<()> {
        let Ok(mut process) = self.process.try_lock() else { return Ok(()) };
        let ended = process.child.as_mut().map(Child::try_wait).transpose()?.flatten();
        if let Some(status) = ended {
            let words = format!("worker {} ended by itself: {status}", self.number);
            process.unasked.push(words);
            self.spawn(&mut process)?;
        }
        Ok(())
    }

    pub fn spawn(&self, process: &mut Process) -> anyhow::Result<()> {
        let product = Path::new(env!("CARGO_BIN_EXE_archon-awo"));
        self.spawn_as(process, product, &["worker".as_ref()])
    }

    /// The log of its process.
    pub fn log(&self, process: &Process) -> PathBuf {
        let number = process.started.saturating_sub(1);
        self.blueprint.folder.join("logs").join(format!("worker-{}-{number}.log", self.number))
    }

    /// Starts another program in its place.
    pub fn spawn_as(
        &self,
        process: &mut Process,
        program: &Path,
        arguments: &[&OsStr],
    ) -> anyhow::Result<()> {
        let Blueprint { folder, volume, agent_command, settings } = &*self.blueprint;
        process.started += 1;
        let log = fs::File::create(self.log(process))?;
        let mut command = volume.command();
        // Innermost, because entering a namespace would take it back.
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]);
        command.arg(program).args(arguments);
        command
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", folder)
            .env("DATABASE_URL", cluster::worker_url(self.proxy.port))
            .env("AWO_REPOSITORY_DIR", &volume.folder)
            .env("AWO_WORK_ORDER_DIR", folder.join("work-orders"))
            .env("AWO_CONFIG_DIR", folder.join("config"))
            .env("AWO_ALLOW_LOCAL_REMOTES", "true")
            .env("AWO_AGENT", "command")
            .env("AWO_AGENT_COMMAND", agent_command)
            .env("ARCHON_AWO_PORT", "0")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().context("nsenter (util-linux) cannot be started")?;
        process.pids.extend(child.id());
        process.child = Some(child);
        Ok(())
    }
}

impl Process {
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    pub fn starts(&self) -> usize {
        self.started
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // Without an id it has ended and was waited for.
        let Some(pid) = self.id() else { return Ok(()) };
        Ok(kill(Pid::from_raw(pid.try_into()?), signal)?)
    }

    /// SIGKILL.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let pid = child.id();
        child.start_kill()?;
        let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        self.killed.extend(pid.map(|pid| Killed { pid, at }));
        child.wait().await?;
        Ok(())
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let mut child = self.child.take().context("there is no process")?;
        let ended = tokio::time::timeout(patience, child.wait()).await;
        Ok(ended.context("the worker did not end")??)
    }

    /// SIGTERM, and the end.
    pub async fn terminate(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let Ok(status) = tokio::time::timeout(LONGEST_DRAIN, child.wait()).await else {
            self.overdue += 1;
            return Ok(child.kill().await?);
        };
        let status = status?;
        // Right after its start no handler is there yet: then the signal itself ends it.
        if !status.success() && status.signal() != Some(Signal::SIGTERM as i32) {
            self.unasked.push(format!("a worker told to end ended with {status}"));
        }
        Ok(())
    }
}

/// How often each of `words` stands in the logs of the workers.
pub fn count_logged<const N: usize>(folder: &Path, words: [&str; N]) -> [usize; N] {
    let mut counts = [0; N];
    for entry in fs::read_dir(folder.join("logs")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        for (count, word) in counts.iter_mut().zip(words) {
            *count += text.lines().filter(|line| line.contains(word)).count();
        }
    }
    counts
}
