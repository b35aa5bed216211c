//! Which processes belong to a run, read from `/proc`: the net that catches what left its parent,
//! its group or its session. Without it a cancelled agent leaves children behind.

use std::{collections::BTreeMap, fs};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// One process as the kernel shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// Its parent's id.
    pub parent: Pid,
    /// Its process group.
    pub group: Pid,
    /// Its session.
    pub session: Pid,
    /// Its state as one letter: `R`, `S`, `D` (in the kernel), `T` (stopped), `t` (traced), `Z` (ended).
    /// Of a process with several threads it is that of the first.
    pub state: char,
    /// How many threads it has; the first counts as long as there is another, ended or not.
    pub thread_count: u32,
}

impl Process {
    /// Whether it runs no more code: it has ended and only waits to be reaped.
    pub fn has_ended(&self) -> bool {
        self.first_has_ended() && self.thread_count <= 1
    }

    /// Whether the first thread has ended; others may run on for as long as they like.
    fn first_has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// Whether it is stopped and runs no code until it is continued.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }

    /// Whether it waits in the kernel and hears no signal until it goes on.
    pub fn waits_in_kernel(&self) -> bool {
        self.state == 'D'
    }

    /// Its living threads, each with an id and a state of its own; where none is shown, the process.
    pub fn threads(&self) -> Vec<Self> {
        let mut threads: Vec<Self> = below(&format!("/proc/{}/task", self.pid)).collect();
        threads.retain(|thread| !thread.first_has_ended());
        if threads.is_empty() { vec![*self] } else { threads }
    }
}

/// What makes a process part of a tree.
#[derive(Debug, Clone)]
pub struct TreeRule {
    /// Everything below this process belongs; the process itself does not.
    pub root: Option<Pid>,
    /// Everything with one of these `NAME=value` entries in its environment belongs.
    pub markers: Vec<String>,
    /// ... unless it has this one too.
    pub spared: Option<String>,
    /// Never part of the tree, whatever its environment says.
    pub except: Pid,
}

impl TreeRule {
    /// The living processes that the rule names, and everything below them.
    pub fn find(&self) -> Vec<Process> {
        let all = snapshot();
        let mut members: BTreeMap<i32, Process> = BTreeMap::new();
        for process in all.values() {
            if process.pid != self.except && self.carries_marker(process) {
                members.insert(process.pid.as_raw(), *process);
            }
        }
        members.extend(
            all.iter()
                .filter(|(_, one)| self.root == Some(one.parent))
                .map(|(pid, one)| (*pid, *one)),
        );
        let mut found = below_any(&all, members.into_values().collect(), self.except);
        found.retain(|process| !process.has_ended());
        found
    }

    fn carries_marker(&self, process: &Process) -> bool {
        if self.markers.is_empty() {
            return false;
        }
        // A thread that has ended has let go of the environment.
        let pid = if process.first_has_ended() {
            process.threads().first().map_or(process.pid, |thread| thread.pid)
        } else {
            process.pid
        };
        // A process of somebody else cannot be read, and is none of ours.
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
        let has = |wanted: &String| environment.split(|b| *b == 0).any(|e| e == wanted.as_bytes());
        self.markers.iter().any(has) && !self.spared.as_ref().is_some_and(has)
    }
}

/// Sends `signal` to a process; one that is already gone is no error.
pub fn send(pid: Pid, signal: Signal) {
    if let Err(error) = kill(pid, signal)
        && error != Errno::ESRCH
    {
        tracing::debug!(%pid, ?signal, %error, "a process could not be signalled");
    }
}

/// These processes and everything below them, without `except` and what is below it alone.
pub fn below_any(all: &BTreeMap<i32, Process>, roots: Vec<Process>, except: Pid) -> Vec<Process> {
    let mut children: BTreeMap<i32, Vec<&Process>> = BTreeMap::new();
    for process in all.values() {
        children.entry(process.parent.as_raw()).or_default().push(process);
    }
    let mut found: BTreeMap<i32, Process> = BTreeMap::new();
    let mut next = roots;
    while let Some(process) = next.pop() {
        let pid = process.pid.as_raw();
        if process.pid != except && found.insert(pid, process).is_none() {
            next.extend(children.get(&pid).into_iter().flatten().copied().copied());
        }
    }
    found.into_values().collect()
}

/// Every process that can be seen, by id.
pub fn snapshot() -> BTreeMap<i32, Process> {
    below("/proc").map(|process| (process.pid.as_raw(), process)).collect()
}

/// What `/proc`, or the threads' part of it, lists.
fn below(folder: &str) -> impl Iterator<Item = Process> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<i32>().is_ok()))
        .filter_map(|entry| parse_stat(&fs::read(entry.path().join("stat")).ok()?))
}

/// Reads a line of `/proc/<pid>/stat`. The name in it may hold anything, brackets included.
fn parse_stat(line: &[u8]) -> Option<Process> {
    let open = line.iter().position(|b| *b == b'(')?;
    let close = line.iter().rposition(|b| *b == b')')?;
    let pid = std::str::from_utf8(line.get(..open)?).ok()?.trim().parse().ok()?;
    let mut rest = std::str::from_utf8(line.get(close + 1..)?).ok()?.split_ascii_whitespace();
    let state = rest.next()?.chars().next()?;
    let parent = rest.next()?.parse().ok()?;
    let (group, session) = (rest.next()?.parse().ok()?, rest.next()?.parse().ok()?);
    let thread_count = rest.nth(13)?.parse().ok()?;
    let [pid, parent, group, session] = [pid, parent, group, session].map(Pid::from_raw);
    Some(Process { pid, parent, group, session, state, thread_count })
}

#[cfg(test)]
mod tests {
    use nix::unistd::{Pid, getpid, gettid};

    use super::{Process, parse_stat, snapshot};

    #[test]
    fn a_hostile_process_name_does_not_confuse_the_parser() {
        let line = b"42 (a) R 1 (b) S 7 42 43 0 -1 64 123 0 0 0 1 2 0 0 20 0 3 0 389798";
        let expected = Process {
            pid: Pid::from_raw(42),
            parent: Pid::from_raw(7),
            group: Pid::from_raw(42),
            session: Pid::from_raw(43),
            state: 'S',
            thread_count: 3,
        };
        assert_eq!(parse_stat(line), Some(expected));
        assert_eq!(parse_stat(b"42 (cut"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn a_process_has_ended_with_its_last_thread() {
        let process = |state: char, threads: u8| {
            let line = format!("1 (a) {state} 7 1 1 0 -1 64 1 0 0 0 1 2 0 0 20 0 {threads} 0 3");
            parse_stat(line.as_bytes()).unwrap()
        };
        assert!(process('Z', 1).has_ended() && process('X', 0).has_ended());
        assert!(!process('Z', 2).has_ended() && !process('S', 1).has_ended());
    }

    #[test]
    fn the_table_holds_this_process_and_its_threads() {
        let ours = snapshot().remove(&getpid().as_raw()).unwrap();
        let thread = gettid();
        assert!(ours.threads().iter().any(|one| one.pid == thread), "{thread} {ours:?}");
    }
}
