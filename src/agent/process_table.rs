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
        // Parents may have any number, so descend until a round adds nobody.
        loop {
            let before = members.len();
            for process in all.values() {
                let parent = process.parent;
                let below = self.root == Some(parent)
                    || (parent != self.except && members.contains_key(&parent.as_raw()));
                if below && process.pid != self.except {
                    members.insert(process.pid.as_raw(), *process);
                }
            }
            if members.len() == before {
                break;
            }
        }
        members.into_values().filter(|process| !process.has_ended()).collect()
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

/// Every process that can be seen, by id.
fn snapshot() -> BTreeMap<i32, Process> {
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
    let thread_count = rest.nth(15)?.parse().ok()?;
    Some(Process { pid: Pid::from_raw(pid), parent: Pid::from_raw(parent), state, thread_count })
}

#[cfg(test)]
mod tests {
    use nix::unistd::{Pid, getpid, gettid};

    use super::{Process, parse_stat, snapshot};

    #[test]
    fn a_hostile_process_name_does_not_confuse_the_parser() {
        let line = b"42 (a) R 1 (b) S 7 42 42 0 -1 64 123 0 0 0 1 2 0 0 20 0 3 0 389798";
        let expected = Process {
            pid: Pid::from_raw(42),
            parent: Pid::from_raw(7),
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
