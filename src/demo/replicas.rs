//! Worker replicas as separate processes of this same program, and the end of them.

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::Child;

use super::postgres::free_port;
use crate::{clock::Clock, process};

/// Longest time a replica may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Times shortened so that the death of a replica is noticed in seconds. The defaults are meant for
/// machines that pause and networks that fail.
pub const TIMINGS: [(&str, &str); 8] = [
    ("AWO_LEASE", "4s"),
    ("AWO_HEARTBEAT", "700ms"),
    ("AWO_SELF_FENCE", "2500ms"),
    ("AWO_RESCUE_GRACE", "500ms"),
    ("AWO_POLL_MIN", "200ms"),
    ("AWO_POLL_MAX", "500ms"),
    ("AWO_POLL_IDLE", "1s"),
    ("AWO_DRAIN_GRACE", "2s"),
];

/// One worker process.
#[derive(Debug)]
pub struct Replica {
    /// From 1.
    pub number: usize,
    /// Its process.
    pub pid: u32,
    /// Where it answers health checks.
    pub port: u16,
    /// What it logs.
    pub log: PathBuf,
    child: Child,
    killed: bool,
}

/// All of them. Killed when dropped; [`Replicas::stop`] is the polite way.
#[derive(Debug, Default)]
pub struct Replicas(Vec<Replica>);

impl Replicas {
    /// Starts one more with `environment` and nothing else.
    pub fn start(&mut self, environment: &[(String, String)], logs: &Path) -> anyhow::Result<()> {
        let number = self.0.len() + 1;
        let path = logs.join(format!("replica-{number}.log"));
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let log = log.with_context(|| format!("cannot write {}", path.display()))?;
        let program = std::env::current_exe().context("cannot find the path of this program")?;
        let port = free_port()?;
        let child = process::command(&program)
            .arg("worker")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env("ARCHON_AWO_PORT", port.to_string())
            .stdout(log.try_clone()?)
            .stderr(log)
            .current_dir(logs)
            // Ctrl-C on the terminal is for the demo, which then stops its replicas.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().context("a replica ended at once")?;
        self.0.push(Replica { number, pid, port, log: path, child, killed: false });
        Ok(())
    }

    /// Every replica that was started.
    pub fn all(&self) -> &[Replica] {
        &self.0
    }

    /// An error when a replica ended that nobody killed.
    pub fn check(&mut self) -> anyhow::Result<()> {
        for replica in self.0.iter_mut().filter(|replica| !replica.killed) {
            if let Some(status) = replica.child.try_wait()? {
                let words = super::tail(&replica.log);
                bail!("replica {} ended ({status}): {words}", replica.number);
            }
        }
        Ok(())
    }

    /// Sends SIGKILL to replica `number` and waits until it is gone.
    pub async fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let replica = self.0.iter_mut().find(|replica| replica.number == number);
        let replica = replica.with_context(|| format!("there is no replica {number}"))?;
        replica.killed = true;
        replica.child.kill().await.with_context(|| format!("cannot kill replica {number}"))
    }

    /// SIGTERM to all, then SIGKILL to those that are still there after a while.
    pub async fn stop(&mut self, clock: &Clock) {
        for replica in &self.0 {
            // No id once it was waited for: the number may be somebody else's by then.
            if let Some(pid) = replica.child.id().and_then(|id| i32::try_from(id).ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
        }
        let deadline = clock.now() + STOP_TIMEOUT;
        for replica in &mut self.0 {
            if tokio::time::timeout_at(deadline, replica.child.wait()).await.is_err() {
                let _ = replica.child.kill().await;
            }
        }
        self.0.clear();
    }
}
