//! Processes that come to this one because their parent is gone. Whoever starts shims takes them on in place
//! of the host's first process: when a shim is killed, what it leaves can be found here, whatever it made of
//! its session, its environment and its name.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use nix::{
    sys::{
        prctl,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::{Pid, getpgrp, getpid, getsid},
};

use super::process_table::{Process, below_any, snapshot};

/// The shims that this process started and has not waited for: each has a session of its own, as what a
/// dead one leaves may have.
static SHIMS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Starts a shim; `spawn` answers it with its process id. What it leaves when it is killed comes here.
pub fn start_shim<T, E>(spawn: impl FnOnce() -> Result<(T, Option<i32>), E>) -> Result<T, E> {
    // Held while it starts, so that nobody takes it for a stranger.
    let mut shims = SHIMS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = prctl::set_child_subreaper(true) {
        tracing::warn!(%error, "what a killed shim leaves will not come to this process");
    }
    let (shim, pid) = spawn()?;
    shims.extend(pid);
    Ok(shim)
}

/// A shim has ended and was waited for.
pub fn shim_ended(pid: i32) {
    SHIMS.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
}

/// The living processes that dead shims left.
pub fn left_behind() -> Vec<Process> {
    let shims = SHIMS.lock().unwrap_or_else(PoisonError::into_inner);
    let all = snapshot();
    let session = getsid(None).ok();
    let strange = |child: &&Process| {
        child.parent == getpid()
            && Some(child.session) != session
            && !shims.contains(&child.pid.as_raw())
    };
    let mut found = below_any(&all, all.values().filter(strange).copied().collect(), getpid());
    found.retain(|process| !process.has_ended());
    found
}

/// Collects those that have ended, and no child of our own: somebody waits for each of these.
pub fn bury() {
    let mut shims = SHIMS.lock().unwrap_or_else(PoisonError::into_inner);
    let all = snapshot();
    let children: Vec<&Process> = all.values().filter(|one| one.parent == getpid()).collect();
    shims.retain(|pid| children.iter().any(|child| child.pid.as_raw() == *pid));
    let (session, group) = (getsid(None).ok(), getpgrp());
    for child in children.into_iter().filter(|child| child.has_ended()) {
        if !shims.contains(&child.pid.as_raw()) && is_adopted(child, session, group) {
            let _ = waitpid(child.pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL));
        }
    }
}

/// Whether a child, no shim, was started by somebody else. Our own stay in our session, in our group or in
/// one that each leads itself, as every git does; what one leaves behind is in the group of its dead leader.
fn is_adopted(child: &Process, session: Option<Pid>, group: Pid) -> bool {
    Some(child.session) != session || (child.group != child.pid && child.group != group)
}

#[cfg(test)]
mod tests {
    use nix::unistd::Pid;

    use super::{Process, is_adopted};

    #[test]
    fn children_of_our_own_are_told_from_those_of_others() {
        let (session, group) = (Some(Pid::from_raw(7)), Pid::from_raw(8));
        let child = |session: i32, group: i32| Process {
            pid: Pid::from_raw(20),
            parent: Pid::from_raw(9),
            group: Pid::from_raw(group),
            session: Pid::from_raw(session),
            state: 'Z',
            thread_count: 1,
        };
        // In our group; git, which leads its own; what a git left; what an agent left.
        let children = [child(7, 8), child(7, 20), child(7, 19), child(20, 20)];
        let adopted = children.map(|child| is_adopted(&child, session, group));
        assert_eq!(adopted, [false, false, true, true]);
    }
}
