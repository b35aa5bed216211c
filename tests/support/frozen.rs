//! Whether a process stands still, whichever way it was stopped.

use std::fs;

/// The state letters of the living threads of a process; empty when it is gone.
pub fn letters(pid: i32) -> Vec<char> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let letters = stats.filter_map(|stat| stat.rsplit_once(')')?.1.trim().chars().next());
    letters.filter(|letter| !matches!(letter, 'Z' | 'X')).collect()
}

/// Whether a SIGSTOP waits for a process to leave the kernel.
fn stop_is_pending(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|s| s & 0x4_0000 != 0)
}

/// The events of the cgroup of a process, where there is one of version 2.
fn events(pid: i32) -> Option<String> {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
    fs::read_to_string(format!("{mount}{path}/cgroup.events")).ok()
}

/// Whether it lives and runs no code: in a frozen cgroup, or each thread was stopped by a signal or
/// waits in the kernel, as a parent does after vfork, with the stop ahead of it.
pub fn is_frozen(pid: i32) -> bool {
    let letters = letters(pid);
    let stand =
        !letters.is_empty() && letters.iter().all(|letter| matches!(letter, 'T' | 't' | 'D'));
    let stopped = letters.iter().any(|letter| matches!(letter, 'T' | 't'));
    let by_signals = stand && (stopped || stop_is_pending(pid));
    let in_frozen_cgroup = || events(pid).is_some_and(|text| text.contains("frozen 1"));
    by_signals || (!letters.is_empty() && in_frozen_cgroup())
}
