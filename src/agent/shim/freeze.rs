//! Stops a tree where it stands and continues it: by its cgroup where it has one, and by signals for
//! what is outside of it or where there is none.

use std::{collections::BTreeSet, thread::sleep, time::Duration};

use nix::{sys::signal::Signal, unistd::Pid};

use super::ShimArguments;
use crate::{
    agent::{
        cgroup::{Cgroup, OwnCgroup},
        cgroup_limits::{self, CgroupLimits},
        process_table::{TreeRule, send},
        stop::stop,
    },
    config::Freezer,
};

/// Longest wait for a cgroup to be frozen: a process inside the kernel may take its time, and runs
/// no code of its own meanwhile.
const PATIENCE: Duration = Duration::from_millis(200);

/// What freezes and kills the tree of one run.
pub struct Freezing {
    policy: Freezer,
    own: Result<OwnCgroup, String>,
    /// The cgroup of the run; gone when it could not be used.
    cgroup: Option<Cgroup>,
    /// Bounds of the run.
    limits: CgroupLimits,
    /// Who was sent SIGSTOP.
    stopped: BTreeSet<i32>,
}

impl Freezing {
    /// For the run that the shim was started for.
    pub fn of_run(arguments: &ShimArguments) -> Self {
        let ShimArguments { freezer, sandbox_root, run_id, .. } = arguments;
        let own = OwnCgroup::find();
        let wanted = own.as_ref().ok().filter(|_| *freezer != Freezer::Signal);
        let cgroup = wanted.map(|own| own.of_run(sandbox_root, run_id));
        let limits = CgroupLimits::default();
        Self { policy: *freezer, own, cgroup, limits, stopped: BTreeSet::new() }
    }

    /// Ends what earlier runs left in this sandbox, whose lock is held: their shims are dead.
    pub fn clear_leftovers(&self, arguments: &ShimArguments) -> BTreeSet<i32> {
        let ShimArguments { sandbox_root, run_id, .. } = arguments;
        cgroup_limits::clear_leftovers(sandbox_root, run_id);
        let others = self.own.as_ref().map(|own| own.others_in(sandbox_root, run_id));
        others.unwrap_or_default().iter().flat_map(Cgroup::kill_and_remove).collect()
    }

    /// Moves this process to where the agent is to be born.
    pub fn enter(&mut self) -> Result<(), String> {
        let entered = match (&self.own, &self.cgroup) {
            (Err(_), _) if self.policy == Freezer::Signal => Ok(()),
            (Err(reason), _) => Err(reason.clone()),
            (Ok(_), None) => Ok(()),
            (Ok(own), Some(cgroup)) => cgroup.enter().map_err(|error| {
                format!("a cgroup below {} cannot be used: {error}", own.folder().display())
            }),
        };
        match entered {
            Err(reason) if self.policy == Freezer::Cgroup => {
                Err(format!("AWO_FREEZER is cgroup, and {reason}"))
            }
            Err(_) => {
                if let Some(cgroup) = self.cgroup.take() {
                    cgroup.remove();
                }
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Sets the bounds of the run; its cgroup has been entered.
    pub fn bound(&mut self, arguments: &ShimArguments) -> &CgroupLimits {
        let ShimArguments { sandbox_root, run_id, confinement, .. } = arguments;
        let run = self.own.as_ref().ok().zip(self.cgroup.as_ref());
        self.limits = CgroupLimits::set(run, sandbox_root, run_id, confinement);
        &self.limits
    }

    /// Whether the kernel killed a process of the run for memory; `None` where nobody counts.
    pub fn ran_out_of_memory(&self) -> Option<bool> {
        self.limits.kills().map(|kills| kills > 0)
    }

    /// Moves this process back.
    pub fn leave(&self) -> Result<(), String> {
        let left = self.cgroup.as_ref().map_or(Ok(()), Cgroup::leave);
        left.map_err(|error| format!("the shim cannot leave the cgroup of its agent: {error}"))
    }

    /// Stops every process; done again, it stops what was continued or has come since.
    pub fn freeze(&mut self, tree: &TreeRule) {
        let frozen = self.cgroup.as_ref().filter(|cgroup| cgroup.freeze(PATIENCE).is_ok()).cloned();
        // What is outside a frozen cgroup, until all stand; one that forked meanwhile is found in the
        // next round.
        for _ in 0..100 {
            let inside = frozen.as_ref().map(Cgroup::members).unwrap_or_default();
            let mut all_stand = true;
            for process in tree.find() {
                let pid = process.pid.as_raw();
                if !inside.contains(&pid) && stop(&process) {
                    self.stopped.insert(pid);
                    all_stand = false;
                }
            }
            if all_stand {
                return;
            }
            sleep(Duration::from_millis(2));
        }
    }

    /// Continues what was stopped, and nothing that had stopped by itself.
    pub fn thaw(&mut self) {
        for pid in std::mem::take(&mut self.stopped) {
            send(Pid::from_raw(pid), Signal::SIGCONT);
        }
        if let Some(cgroup) = &self.cgroup {
            // One that is gone has nobody to continue.
            let _ = cgroup.thaw();
        }
    }

    /// Kills what is in the cgroup, at once, and answers who was there.
    pub fn kill(&self) -> BTreeSet<i32> {
        self.cgroup.as_ref().map(Cgroup::kill).unwrap_or_default()
    }

    /// Removes the cgroups; `false` while a process is left in one.
    pub fn remove(&self) -> bool {
        self.limits.remove() && self.cgroup.as_ref().is_none_or(Cgroup::remove)
    }
}
