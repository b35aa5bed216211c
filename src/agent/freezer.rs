//! What freezes agents on this host and holds them together, asked before the first one starts; and the end
//! of agents whose shim and worker were both killed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::fcntl::FlockArg;

use super::{
    cgroup::{Cgroup, OwnCgroup},
    cgroup_limits,
    containment::{Containment, Mechanism},
    probe::may_trace,
    shim::lock_sandbox,
};
use crate::config::Freezer;

/// What freezes agents here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FreezerReport {
    /// A cgroup for each run, below this one.
    Cgroup(PathBuf),
    /// The shim traces them, and why not cgroups.
    Ptrace(String),
    /// SIGSTOP, and why nothing else.
    Signals(String),
}

impl FreezerReport {
    /// The same as what holds the processes of a run.
    pub fn containment(&self) -> Containment {
        match self {
            Self::Cgroup(_) => Containment::firm(Mechanism::Cgroup),
            Self::Ptrace(_) => Containment::firm(Mechanism::Ptrace),
            Self::Signals(reason) => Containment::signals(reason),
        }
    }
}

impl std::fmt::Display for FreezerReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cgroup(folder) => write!(f, "a cgroup for each run below {}", folder.display()),
            Self::Ptrace(reason) => write!(f, "tracing: {reason}"),
            Self::Signals(reason) => write!(f, "SIGSTOP: {reason}"),
        }
    }
}

/// Finds out what freezes agents here; the error says why that cannot which alone is wanted. `program` is
/// this very binary. Blocks for some milliseconds.
pub fn find_freezer(program: &Path, wanted: Freezer) -> Result<FreezerReport, String> {
    let usable = || OwnCgroup::find().and_then(|own| own.check().map(|()| own));
    let no_cgroup = match wanted {
        Freezer::Signal => {
            return Ok(FreezerReport::Signals("AWO_FREEZER is signal".to_owned()));
        }
        Freezer::Ptrace => "AWO_FREEZER is ptrace".to_owned(),
        Freezer::Cgroup | Freezer::Auto => match usable() {
            Ok(own) => return Ok(FreezerReport::Cgroup(own.folder().to_owned())),
            Err(reason) if wanted == Freezer::Cgroup => return Err(reason),
            Err(reason) => reason,
        },
    };
    match may_trace(program) {
        Ok(()) => Ok(FreezerReport::Ptrace(no_cgroup)),
        Err(reason) if wanted == Freezer::Ptrace => Err(reason),
        Err(reason) => Ok(FreezerReport::Signals(format!("{no_cgroup}; {reason}"))),
    }
}

/// Ends the agents on this host whose shim is dead, and removes their cgroups: the worker and the
/// shim may have been killed together. Answers how many processes had to be killed.
pub fn end_orphans() -> usize {
    cgroup_limits::remove_empty();
    let Ok(own) = OwnCgroup::find() else { return 0 };
    own.runs().iter().map(end_if_orphaned).sum()
}

/// Whether an agent is in a cgroup of its own below that of this process.
pub fn live_runs() -> bool {
    OwnCgroup::find().is_ok_and(|own| own.runs().iter().any(Cgroup::is_populated))
}

fn end_if_orphaned(cgroup: &Cgroup) -> usize {
    // A living shim holds it, whatever its agent made of the environment of its processes.
    let Ok(_lock) = cgroup.lock(FlockArg::LockExclusiveNonblock) else { return 0 };
    if !cgroup.is_populated() {
        // A shim that is about to use it makes it again.
        cgroup.remove();
        return 0;
    }
    if is_held_by_an_older_release(cgroup) { 0 } else { cgroup.kill_and_remove().len() }
}

/// Whether a shim lives that does not lock its cgroup, as those before this one did: it holds its sandbox.
fn is_held_by_an_older_release(cgroup: &Cgroup) -> bool {
    let named = cgroup.members().into_iter().filter_map(sandbox_of);
    let sandbox = named.into_iter().find(|sandbox| cgroup.is_of(sandbox));
    // No such file: the sandbox is gone, or is not the one that stands here under that name.
    let sandbox = sandbox.filter(|sandbox| sandbox.join(".lock").is_file());
    sandbox.is_some_and(|sandbox| !matches!(lock_sandbox(&sandbox), Ok(Some(_))))
}

/// The sandbox that a process was started in.
fn sandbox_of(pid: i32) -> Option<PathBuf> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let entries = environment.split(|b| *b == 0).map(String::from_utf8_lossy);
    entries.into_iter().find_map(|entry| entry.strip_prefix("AWO_SANDBOX=").map(PathBuf::from))
}
