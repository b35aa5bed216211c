//! Bounds for the processes and the memory of one run and its share of the processors, by the cgroup it has
//! anyway or, where the limits are with version 1, by one more for each. They also tell that the kernel killed
//! for memory.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

use super::{
    cgroup::{Cgroup, OwnCgroup},
    isolation::{Confinement, Limits},
};

/// A controller: its name, the file with its limit in version 2 and in version 1.
const PROCESSES: [&str; 3] = ["pids", "pids.max", "pids.max"];
const MEMORY: [&str; 3] = ["memory", "memory.max", "memory.limit_in_bytes"];
const PROCESSORS: [&str; 3] = ["cpu", "cpu.weight", "cpu.shares"];

/// How much a run weighs, in version 2 and in version 1: as much as one process, so that it is no slower for it on
/// a busy host. However many busy processes it has, together they weigh no more, and worker and shim are not
/// kept from ending them. Without
/// it they are when the kernel groups by session (`kernel.sched_autogroup_enabled`): there a priority counts
/// within a session alone, and each new session of an agent weighs as much as its shim.
const WEIGHT: [u64; 2] = [100, 1024];

/// The bounds of one run.
#[derive(Debug, Default)]
pub struct CgroupLimits {
    /// What is bounded.
    pub limits: Limits,
    /// Cgroups of version 1, which the agent has to enter itself, each with the lock on its folder that
    /// tells others that its shim lives.
    groups: Vec<(Cgroup, Flock<File>)>,
    /// Where kills for memory are counted.
    kills: Option<PathBuf>,
}

impl CgroupLimits {
    /// Sets them for the run whose cgroup of version 2, if it has one, is `run`.
    pub fn set(
        run: Option<(&OwnCgroup, &Cgroup)>,
        root: &Path,
        id: &str,
        wanted: &Confinement,
    ) -> Self {
        let mut set = Self::default();
        let processes = u64::from(wanted.processes);
        set.limits.processes = set.one(PROCESSES, Some([processes; 2]), run, root, id);
        set.limits.memory = set.one(MEMORY, wanted.memory.map(|most| [most; 2]), run, root, id);
        set.limits.processors = set.one(PROCESSORS, Some(WEIGHT), run, root, id);
        set
    }

    fn one(
        &mut self,
        [name, file, old_file]: [&str; 3],
        most: Option<[u64; 2]>,
        run: Option<(&OwnCgroup, &Cgroup)>,
        root: &Path,
        id: &str,
    ) -> bool {
        let Some([most, old_most]) = most.map(|most| most.map(|number| number.to_string())) else {
            return false;
        };
        if let Some((own, run)) = run {
            if !run.file(file).exists() {
                // Refused where processes live beside the cgroups of the runs: then there is none.
                let _ = fs::write(own.folder().join("cgroup.subtree_control"), format!("+{name}"));
            }
            if fs::write(run.file(file), &most).is_ok() {
                if name == MEMORY[0] {
                    // Or a part of it goes to swap, and the limit is no limit.
                    let _ = fs::write(run.file("memory.swap.max"), "0");
                    self.kills = Some(run.file("memory.events"));
                }
                return true;
            }
        }
        let Some(group) = OwnCgroup::of_controller(name).map(|own| own.of_run(root, id)) else {
            return false;
        };
        // A worker that starts up removes empty ones, and may be quicker once.
        let Some(lock) = (0..3).find_map(|_| claim(&group, old_file, &old_most).ok()) else {
            group.remove();
            return false;
        };
        if name == MEMORY[0] {
            self.kills = Some(group.file("memory.oom_control"));
        }
        self.groups.push((group, lock));
        true
    }

    /// The files a process writes itself into to be bounded.
    pub fn doors(&self) -> Vec<PathBuf> {
        self.groups.iter().map(|(group, _)| group.file("cgroup.procs")).collect()
    }

    /// How many processes of the run the kernel has killed for memory; `None` where nobody counts.
    pub fn kills(&self) -> Option<u64> {
        let text = fs::read_to_string(self.kills.as_ref()?).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }

    /// Removes the cgroups of version 1; `false` while a process is left in one.
    pub fn remove(&self) -> bool {
        self.groups.iter().all(|(group, _)| group.remove())
    }
}

/// Ends what is left of earlier runs in a sandbox, whose lock is held.
pub fn clear_leftovers(root: &Path, id: &str) {
    for own in controllers() {
        for group in own.others_in(root, id) {
            group.kill_and_remove();
        }
    }
}

/// Removes the empty cgroups of runs whose shims were killed. One that is empty because its agent has
/// not entered it yet is locked.
pub fn remove_empty() {
    for group in controllers().iter().flat_map(OwnCgroup::runs) {
        if group.lock(FlockArg::LockExclusiveNonblock).is_ok() {
            group.remove();
        }
    }
}

/// Makes a cgroup that nobody removes while the lock is held, and sets its limit: that this can be
/// written shows that it is still there.
fn claim(group: &Cgroup, file: &str, most: &str) -> io::Result<Flock<File>> {
    group.make()?;
    let lock = group.lock(FlockArg::LockSharedNonblock)?;
    fs::write(group.file(file), most)?;
    Ok(lock)
}

fn controllers() -> Vec<OwnCgroup> {
    let names = [PROCESSES[0], MEMORY[0], PROCESSORS[0]];
    names.iter().filter_map(|name| OwnCgroup::of_controller(name)).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{CgroupLimits, remove_empty};
    use crate::{agent::isolation::Confinement, config::IsolationConfig};

    #[test]
    fn a_worker_that_starts_up_leaves_the_cgroup_that_an_agent_is_about_to_enter() {
        let wanted = Confinement::of(&IsolationConfig::default()).unwrap();
        let set = CgroupLimits::set(None, Path::new("/no/sandbox"), "of-this-test", &wanted);
        if set.doors().is_empty() {
            eprintln!("no limits by cgroups of version 1 here: nothing to be shown");
        }
        remove_empty();
        for door in set.doors() {
            assert!(door.exists(), "{} is gone", door.display());
        }
        let folders: Vec<_> = set.doors().iter().map(|door| door.with_file_name(".")).collect();
        drop(set);
        remove_empty();
        assert!(folders.iter().all(|folder| !folder.exists()), "{folders:?}");
    }
}
