//! What freezes agents on this host, asked before the first one starts; and the end of agents whose
//! shim and worker were both killed.

use std::{fs, path::PathBuf};

use super::{
    cgroup::{Cgroup, OwnCgroup},
    cgroup_limits,
    shim::lock_sandbox,
};
use crate::config::Freezer;

/// What freezes agents here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FreezerReport {
    /// A cgroup for each run, below this one.
    Cgroup(PathBuf),
    /// SIGSTOP, and why not cgroups.
    Signals(String),
}

impl std::fmt::Display for FreezerReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cgroup(folder) => write!(f, "a cgroup for each run below {}", folder.display()),
            Self::Signals(reason) => write!(f, "SIGSTOP: {reason}"),
        }
    }
}

/// Finds out what freezes agents here; the error says why cgroups cannot, where nothing else is
/// wanted. Blocks on the cgroup file system.
pub fn find_freezer(wanted: Freezer) -> Result<FreezerReport, String> {
    if wanted == Freezer::Signal {
        return Ok(FreezerReport::Signals("AWO_FREEZER is signal".to_owned()));
    }
    let usable = OwnCgroup::find().and_then(|own| own.check().map(|()| own));
    match usable {
        Ok(own) => Ok(FreezerReport::Cgroup(own.folder().to_owned())),
        Err(reason) if wanted == Freezer::Cgroup => Err(reason),
        Err(reason) => Ok(FreezerReport::Signals(reason)),
    }
}

/// Ends the agents on this host whose shim is dead, and removes their cgroups: the worker and the
/// shim may have been killed together. Answers how many processes had to be killed.
pub fn end_orphans() -> usize {
    cgroup_limits::remove_empty();
    let Ok(own) = OwnCgroup::find() else { return 0 };
    own.runs().iter().map(end_if_orphaned).sum()
}

fn end_if_orphaned(cgroup: &Cgroup) -> usize {
    if !cgroup.is_populated() {
        // A shim that is about to use it makes it again.
        cgroup.remove();
        return 0;
    }
    // The agent decides about the environment of its processes, and not about the name of its cgroup.
    let named = cgroup.members().into_iter().filter_map(sandbox_of);
    let Some(sandbox) = named.into_iter().find(|sandbox| cgroup.is_of(sandbox)) else { return 0 };
    // No such file: the sandbox is gone, or is not the one that stands here under that name.
    if !sandbox.join(".lock").is_file() {
        return 0;
    }
    // A living shim holds the lock; so does a new one that clears up by itself.
    match lock_sandbox(&sandbox) {
        Ok(Some(_lock)) => cgroup.kill_and_remove().len(),
        Ok(None) | Err(_) => 0,
    }
}

/// The sandbox that a process was started in.
fn sandbox_of(pid: i32) -> Option<PathBuf> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let entries = environment.split(|b| *b == 0).map(String::from_utf8_lossy);
    entries.into_iter().find_map(|entry| entry.strip_prefix("AWO_SANDBOX=").map(PathBuf::from))
}
