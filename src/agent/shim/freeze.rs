//! Stops a tree where it stands, continues and kills it: by its cgroup where it has one, else by tracing it,
//! and by signals for what is outside of a cgroup or where there is neither.

use std::{collections::BTreeSet, thread::sleep, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{
    ShimArguments,
    tracer::{News, Tracer},
};
use crate::{
    agent::{
        cgroup::{Cgroup, OwnCgroup},
        cgroup_limits::{self, CgroupLimits},
        containment::{Containment, Mechanism},
        process_table::{TreeRule, send},
        stop::stop,
    },
    config::Freezer,
};

/// Longest wait for a cgroup to be frozen: a process inside the kernel may take its time, and runs
/// no code of its own meanwhile.
const PATIENCE: Duration = Duration::from_millis(200);

/// From so many processes that want to run on, a tree of signals is stopped by its group first.
const CROWD: u32 = 64;

/// What freezes and kills the tree of one run.
pub struct Freezing {
    policy: Freezer,
    own: Result<OwnCgroup, String>,
    /// The cgroup of the run; gone when it could not be used.
    cgroup: Option<Cgroup>,
    /// Traces the tree; where there is no cgroup and it is allowed.
    tracer: Option<Tracer>,
    /// Bounds of the run.
    limits: CgroupLimits,
    /// The tree was told to stop and not to go on.
    is_told: bool,
    /// The agent's process group, when it was sent SIGSTOP as a whole.
    group: Option<Pid>,
    /// Who was sent SIGSTOP besides.
    stopped: BTreeSet<i32>,
}

impl Freezing {
    /// For the run that the shim was started for.
    pub fn of_run(arguments: &ShimArguments) -> Self {
        let ShimArguments { freezer, sandbox_root, run_id, .. } = arguments;
        let own = OwnCgroup::find();
        let wanted = own.as_ref().ok().filter(|_| wants_cgroup(*freezer));
        let cgroup = wanted.map(|own| own.of_run(sandbox_root, run_id));
        Self {
            policy: *freezer,
            own,
            cgroup,
            tracer: None,
            limits: CgroupLimits::default(),
            is_told: false,
            group: None,
            stopped: BTreeSet::new(),
        }
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
            (Err(_), _) if !wants_cgroup(self.policy) => Ok(()),
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

    /// Takes hold of the tree that a child of this process will be the first of, which waits and has the
    /// user it was started with; an error where that is impossible in the only way that is wanted.
    pub fn hold(&mut self, agent: Pid) -> Result<Containment, String> {
        if self.cgroup.is_some() {
            return Ok(Containment::firm(Mechanism::Cgroup));
        }
        if self.policy == Freezer::Signal {
            return Ok(Containment::signals("AWO_FREEZER is signal"));
        }
        match Tracer::start(agent) {
            Ok(tracer) => {
                self.tracer = Some(tracer);
                Ok(Containment::firm(Mechanism::Ptrace))
            }
            Err(reason) if self.policy == Freezer::Ptrace => {
                Err(format!("AWO_FREEZER is ptrace, and {reason}"))
            }
            Err(reason) => Ok(Containment::signals(reason)),
        }
    }

    /// Who traces the tree, if anybody does. Then nobody else may wait for processes.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_ref()
    }

    /// What the tracer has told since.
    pub fn news(&mut self) -> Vec<News> {
        self.tracer.as_mut().map(Tracer::news).unwrap_or_default()
    }

    /// Kills what is traced, in one go, and answers how many processes that were; `None` where nothing is.
    pub fn end_tracing(&mut self) -> Option<usize> {
        Some(self.tracer.take()?.end())
    }

    /// Whether the tree is killed without being looked for.
    pub fn is_firm(&self) -> bool {
        self.cgroup.is_some() || self.tracer.is_some()
    }

    /// Stops every process; done again, it stops what was continued or has come since. Answers whether
    /// that was done: the tracer tells later.
    pub fn freeze(&mut self, tree: &TreeRule, agent: Option<Pid>) -> bool {
        let again = std::mem::replace(&mut self.is_told, true);
        if let Some(tracer) = &self.tracer {
            if !again {
                tracer.freeze();
            }
            return false;
        }
        if let Some(agent) = agent.filter(|_| self.cgroup.is_none() && !again && is_crowded()) {
            // Most of it at once, for there is no time to look for them. What the agent itself had stopped
            // in its group goes on with the others later.
            self.group = killpg(agent, Signal::SIGSTOP).is_ok().then_some(agent);
        }
        self.stop_all(tree);
        true
    }

    fn stop_all(&mut self, tree: &TreeRule) {
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
        self.is_told = false;
        if let Some(tracer) = &self.tracer {
            tracer.thaw();
        }
        if let Some(group) = self.group.take() {
            // One that is gone has nobody to continue.
            let _ = killpg(group, Signal::SIGCONT);
        }
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

/// Whether so many processes want to run that looking for those of a tree would take too long.
fn is_crowded() -> bool {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    // 0.20 0.18 0.12 1/80 11206: the fourth is how many run or want to, of how many.
    let ready = load.split(' ').nth(3).and_then(|field| field.split_once('/')?.0.parse().ok());
    ready.is_some_and(|ready: u32| ready > CROWD)
}

/// Whether a cgroup is to be made where it can be.
const fn wants_cgroup(policy: Freezer) -> bool {
    matches!(policy, Freezer::Auto | Freezer::Cgroup)
}
