//! Stops a tree where it stands, continues and kills it: by its cgroup where it has one, else by tracing it,
//! else by signals to all that is in the domain of its shim. Processes are looked for one by one only where
//! there is none of these, and where something may have left its cgroup.

use std::{collections::BTreeSet, fs::File, thread::sleep, time::Duration};

use nix::{
    fcntl::Flock,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{
    ShimArguments,
    domain::Domain,
    tracer::{News, Tracer},
};
use crate::{
    agent::{
        cgroup::{Cgroup, OwnCgroup},
        cgroup_limits::{self, CgroupLimits},
        containment::{Containment, Mechanism},
        isolation::Isolation,
        process_table::{TreeRule, send},
        stop::stop,
    },
    config::{Freezer, IsolationMode},
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
    /// Tells others that its shim lives.
    lock: Option<Flock<File>>,
    /// Traces the tree; where there is no cgroup and it is allowed.
    tracer: Option<Tracer>,
    /// Bounds signals to the tree; where the kernel can and the agent is to be shut in.
    domain: Option<Domain>,
    /// The agent cannot open the files by which it would leave its cgroup.
    is_shut_in: bool,
    /// Bounds of the run.
    limits: CgroupLimits,
    /// The tree was told to stop and not to go on.
    is_told: bool,
    /// The agent's process group, when it was sent SIGSTOP as a whole.
    group: Option<Pid>,
    /// Everything in the domain was sent SIGSTOP.
    is_all_stopped: bool,
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
            lock: None,
            tracer: None,
            domain: None,
            is_shut_in: false,
            limits: CgroupLimits::default(),
            is_told: false,
            group: None,
            is_all_stopped: false,
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
            (Err(_), _) if !wants_cgroup(self.policy) => Ok(None),
            (Err(reason), _) => Err(reason.clone()),
            (Ok(_), None) => Ok(None),
            (Ok(own), Some(cgroup)) => cgroup.enter().map(Some).map_err(|error| {
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
            Ok(lock) => {
                self.lock = lock;
                Ok(())
            }
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

    /// Bounds signals to this process and what it starts, so that one to all reaches the tree and nobody else.
    pub fn enter_domain(&mut self, arguments: &ShimArguments) {
        if arguments.confinement.mode == IsolationMode::Off {
            return;
        }
        match Domain::enter() {
            Ok(domain) => self.domain = Some(domain),
            // The other means do without, and its absence lowers the level of the isolation anyway.
            Err(reason) => tracing::debug!(reason, "processes are looked for one by one"),
        }
    }

    /// How far the agent was shut in, once that is known.
    pub fn note_isolation(&mut self, isolation: &Isolation) {
        self.is_shut_in = isolation.landlock > 0;
    }

    /// Whether the tree is killed without being looked for.
    pub fn is_firm(&self) -> bool {
        let by_cgroup = self.cgroup.is_some() && self.is_shut_in;
        by_cgroup || self.tracer.is_some() || self.domain.is_some()
    }

    /// Kills the tree, whose first process is `agent` as long as that lives, in one go where that is possible.
    /// Answers what its tracer told last.
    pub fn kill(&mut self, agent: Option<Pid>) -> Vec<News> {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        if let Some(domain) = &self.domain {
            domain.signal_all(Signal::SIGKILL);
        }
        let last = self.tracer.take().map(Tracer::end).unwrap_or_default();
        if let Some(agent) = agent.filter(|_| self.domain.is_none()) {
            // Most of it at once: there may be more processes than can be looked for in time.
            let _ = killpg(agent, Signal::SIGKILL);
        }
        last
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
        let frozen = self.cgroup.as_ref().filter(|cgroup| cgroup.freeze(PATIENCE).is_ok()).cloned();
        if frozen.is_some() && self.is_shut_in {
            return true;
        }
        if frozen.is_none() && !again && is_crowded() {
            // There is no time to look for them. What the agent itself had stopped goes on with the others
            // later.
            if let Some(domain) = &self.domain {
                domain.signal_all(Signal::SIGSTOP);
                self.is_all_stopped = true;
                return true;
            }
            self.group = agent.filter(|agent| killpg(*agent, Signal::SIGSTOP).is_ok());
        }
        self.stop_all(tree, frozen.as_ref());
        true
    }

    fn stop_all(&mut self, tree: &TreeRule, frozen: Option<&Cgroup>) {
        // What is outside a frozen cgroup, until all stand; one that forked meanwhile is found in the
        // next round.
        for _ in 0..100 {
            let inside = frozen.map(Cgroup::members).unwrap_or_default();
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
        if let Some(domain) = &self.domain
            && std::mem::take(&mut self.is_all_stopped)
        {
            domain.signal_all(Signal::SIGCONT);
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
