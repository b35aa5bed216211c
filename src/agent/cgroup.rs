//! A cgroup (v2) for each run of an agent: it stops, continues and kills a whole tree at once, however
//! fast the tree forks and wherever its processes have fled to. Where none can be made, signals do.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::Signal,
    unistd::Pid,
};
use sha2::{Digest, Sha256};

use super::process_table::send;
use crate::clock::boot_time;

/// How cgroups of runs begin, for whoever looks at the folder and for the sweep.
const PREFIX: &str = "awo-";
/// How often a cgroup that freezes or empties is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// Longest wait for a cgroup of a dead shim to be empty.
const LONGEST_KILL: Duration = Duration::from_secs(5);

/// The cgroup this process lives in, below which there is one for each run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCgroup {
    folder: PathBuf,
}

impl OwnCgroup {
    /// Finds it; the error says why agents cannot have cgroups here.
    pub fn find() -> Result<Self, String> {
        let read = |path: &str| {
            fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"))
        };
        let folder = locate(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?, None)?;
        Ok(Self { folder })
    }

    /// Finds the one in which a controller of version 1 has this process: on hosts where version 2
    /// has the processes and version 1 the limits.
    pub fn of_controller(controller: &str) -> Option<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (mounts, cgroups) = (read("/proc/self/mountinfo"), read("/proc/self/cgroup"));
        Some(Self { folder: locate(&mounts, &cgroups, Some(controller)).ok()? })
    }

    /// Proves that cgroups can be made here and that processes may be moved into them.
    pub fn check(&self) -> Result<(), String> {
        let probe = self.child(&format!("probe-{}", uuid::Uuid::new_v4()));
        let failed = |what: &str, error: &io::Error| {
            format!("{what} in {} failed: {error}", self.folder.display())
        };
        fs::create_dir(&probe.folder).map_err(|error| failed("making a cgroup", &error))?;
        let opened = [self.folder.join("cgroup.procs"), probe.file("cgroup.procs")]
            .iter()
            .try_for_each(|file| File::options().write(true).open(file).map(drop));
        let freezes = probe.file("cgroup.freeze").exists();
        let removed = fs::remove_dir(&probe.folder);
        opened.map_err(|error| failed("moving a process", &error))?;
        removed.map_err(|error| failed("removing a cgroup", &error))?;
        if freezes {
            Ok(())
        } else {
            Err("the kernel cannot freeze cgroups: it is older than 5.2".to_owned())
        }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The cgroup of a run in a sandbox, made or not.
    pub fn of_run(&self, sandbox_root: &Path, run_id: &str) -> Cgroup {
        self.child(&format!("{}{run_id}", of_sandbox(sandbox_root)))
    }

    /// The cgroups of other runs in that sandbox.
    pub fn others_in(&self, sandbox_root: &Path, run_id: &str) -> Vec<Cgroup> {
        let (prefix, ours) = (of_sandbox(sandbox_root), self.of_run(sandbox_root, run_id));
        let mut found = self.named(&format!("{PREFIX}{prefix}"));
        found.retain(|cgroup| *cgroup != ours);
        found
    }

    /// The cgroups of all runs.
    pub fn runs(&self) -> Vec<Cgroup> {
        self.named(PREFIX)
    }

    fn named(&self, prefix: &str) -> Vec<Cgroup> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let fits = |entry: &fs::DirEntry| {
            entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix))
        };
        entries
            .filter_map(Result::ok)
            .filter(fits)
            .map(|entry| Cgroup { parent: self.folder.clone(), folder: entry.path() })
            .collect()
    }

    fn child(&self, name: &str) -> Cgroup {
        let folder = self.folder.join(format!("{PREFIX}{name}"));
        Cgroup { parent: self.folder.clone(), folder }
    }
}

/// The part of a cgroup's name that tells its sandbox, so that leftovers of a dead shim are known.
fn of_sandbox(root: &Path) -> String {
    let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
    let key = digest.iter().take(8).fold(0u64, |key, byte| key << 8 | u64::from(*byte));
    format!("{key:016x}-")
}

/// The folder of this process's cgroup, from `/proc/self/mountinfo` and `/proc/self/cgroup`: of version
/// 2, or the one of a controller of version 1.
fn locate(mounts: &str, cgroups: &str, controller: Option<&str>) -> Result<PathBuf, String> {
    let named = |list: &str, name: &str| list.split(',').any(|word| word == name);
    let ours = cgroups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let fits = match controller {
            Some(name) => named(controllers, name),
            None => line.starts_with("0::"),
        };
        fits.then_some(path)
    });
    let ours = ours.ok_or("this process is in no cgroup of version 2")?;
    // 41 31 0:38 /root/in/it /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw
    let mount = mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut words = place.split(' ').skip(3);
        let (root, point) = (words.next()?, words.next()?);
        let below = Path::new(ours).strip_prefix(root).ok()?;
        let fits = match controller {
            Some(name) => {
                kind.starts_with("cgroup ")
                    && named(kind.rsplit(' ').next().unwrap_or_default(), name)
            }
            None => kind.starts_with("cgroup2 "),
        };
        fits.then(|| (point.to_owned(), below.to_owned()))
    });
    let (point, below) = mount.ok_or("no cgroup file system of version 2 is mounted")?;
    // Seen from inside a namespace, a cgroup outside it begins with "/..".
    if point.contains('\\') || below.components().any(|part| part.as_os_str() == "..") {
        return Err(format!("the cgroup {ours} of this process cannot be reached"));
    }
    // Joining nothing would add a slash.
    Ok(Path::new(&point).join(below).components().collect())
}

/// The cgroup of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    parent: PathBuf,
    folder: PathBuf,
}

impl Cgroup {
    /// Makes it and moves this process into it, so that a child is born there. Nobody takes it for one whose
    /// shim is dead while the lock is held.
    pub fn enter(&self) -> io::Result<Flock<File>> {
        let mut tries = 3;
        loop {
            self.make()?;
            let held = self.lock(FlockArg::LockSharedNonblock);
            match held.and_then(|lock| fs::write(self.file("cgroup.procs"), "0").map(|()| lock)) {
                // A worker that starts up removes empty ones.
                Err(error)
                    if tries > 0
                        && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::WouldBlock) =>
                {
                    tries -= 1;
                }
                other => return other,
            }
        }
    }

    /// Locks its folder, by which others tell that somebody who uses it lives.
    pub fn lock(&self, how: FlockArg) -> io::Result<Flock<File>> {
        Flock::lock(File::open(&self.folder)?, how).map_err(|(_, error)| error.into())
    }

    /// Makes it, for others to enter.
    pub fn make(&self) -> io::Result<()> {
        match fs::create_dir(&self.folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Moves this process back.
    pub fn leave(&self) -> io::Result<()> {
        fs::write(self.parent.join("cgroup.procs"), "0")
    }

    /// Stops all processes where they stand; answers whether that was seen within `patience`. One
    /// that waits inside the kernel stops as soon as it would run code of its own again.
    pub fn freeze(&self, patience: Duration) -> io::Result<bool> {
        fs::write(self.file("cgroup.freeze"), "1")?;
        let began = boot_time();
        while !self.has("frozen 1") {
            if boot_time().saturating_sub(began) > patience {
                return Ok(false);
            }
            sleep(LOOK);
        }
        Ok(true)
    }

    /// Continues them.
    pub fn thaw(&self) -> io::Result<()> {
        fs::write(self.file("cgroup.freeze"), "0")
    }

    /// Kills all processes, frozen ones too.
    pub fn kill(&self) {
        // Linux 5.14 and newer: at once, and no fork escapes. To read who is there would take longer than
        // all of them take to die.
        if fs::write(self.file("cgroup.kill"), "1").is_err() {
            for pid in self.members() {
                send(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    /// The processes in it and in those that the agent made below it.
    pub fn members(&self) -> BTreeSet<i32> {
        let mut members = BTreeSet::new();
        for folder in self.folders() {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            // A zero stands for a process of another namespace.
            members.extend(
                text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0),
            );
        }
        members
    }

    /// Whether it was made for a run in that sandbox.
    pub fn is_of(&self, sandbox_root: &Path) -> bool {
        let name = self.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(&format!("{PREFIX}{}", of_sandbox(sandbox_root)))
    }

    /// Whether a process lives in it; no when it is gone.
    pub fn is_populated(&self) -> bool {
        self.has("populated 1")
    }

    /// Removes it; `true` when it is gone, `false` while a process is left.
    pub fn remove(&self) -> bool {
        for folder in self.folders().iter().rev() {
            match fs::remove_dir(folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => return false,
                _ => {}
            }
        }
        true
    }

    /// Kills until it is empty and removes it; gives up when the kernel does not let go. Answers who
    /// was there.
    pub fn kill_and_remove(&self) -> BTreeSet<i32> {
        let (killed, began) = (self.members(), boot_time());
        loop {
            self.kill();
            if self.remove() || boot_time().saturating_sub(began) > LONGEST_KILL {
                return killed;
            }
            sleep(LOOK);
        }
    }

    fn has(&self, line: &str) -> bool {
        let events = fs::read_to_string(self.file("cgroup.events")).unwrap_or_default();
        events.lines().any(|known| known == line)
    }

    /// One of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// It and everything below it, parents first.
    fn folders(&self) -> Vec<PathBuf> {
        let mut found = vec![self.folder.clone()];
        let mut next = 0;
        while let Some(folder) = found.get(next) {
            let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
            let below: Vec<PathBuf> = entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path())
                .collect();
            found.extend(below);
            next += 1;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::locate;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn the_own_cgroup_is_found_on_pure_and_hybrid_hosts_and_in_containers() {
        let found = |mounts, cgroups| locate(mounts, cgroups, None).unwrap();
        assert_eq!(
            found(HYBRID, "6:freezer:/x\n0::/system.slice/awo.service\n"),
            PathBuf::from("/sys/fs/cgroup/unified/system.slice/awo.service")
        );
        let pure =
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(found(pure, "0::/\n"), Path::new("/sys/fs/cgroup"));
        let bound = "9 1 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(found(bound, "0::/docker/abc/job\n"), Path::new("/sys/fs/cgroup/job"));
    }

    #[test]
    fn a_controller_of_version_1_is_found_by_its_name() {
        let cgroups = "8:pids:/x\n6:cpu,freezer:/y\n0::/\n";
        let found = |name| locate(HYBRID, cgroups, Some(name)).ok();
        assert_eq!(found("freezer"), Some(PathBuf::from("/sys/fs/cgroup/freezer/y")));
        assert_eq!((found("pids"), found("memory")), (None, None));
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let said = |mounts, cgroups| locate(mounts, cgroups, None).unwrap_err();
        assert!(said(HYBRID, "6:freezer:/x\n").contains("in no cgroup of version 2"));
        assert!(said("31 23 0:28 / / rw - ext4 x rw\n", "0::/\n").contains("is mounted"));
        let outside = "9 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert!(said(outside, "0::/../other\n").contains("cannot be reached"));
    }
}
