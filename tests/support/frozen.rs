//! Whether a process stands still, whichever way it was stopped.

use std::fs;

/// The state letter of a process; `None` when it is gone.
fn letter(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim().chars().next()
}

/// The events of the cgroup of a process, where there is one of version 2.
fn events(pid: i32) -> Option<String> {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
    fs::read_to_string(format!("{mount}{path}/cgroup.events")).ok()
}

/// Whether it lives and runs no code: stopped by a signal, or in a frozen cgroup.
pub fn is_frozen(pid: i32) -> bool {
    let in_frozen_cgroup = || events(pid).is_some_and(|text| text.contains("frozen 1"));
    letter(pid).is_some_and(|state| state == 'T' || (state != 'Z' && in_frozen_cgroup()))
}
