//! The threads of a traced tree: which live, which stand still, and how each goes on after a stop.

use std::collections::HashMap;

use nix::{errno::Errno, libc, unistd::Pid};

use super::ptrace::{self, EVENT_CLONE, EVENT_STOP};

/// How a thread that has stopped goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Onward {
    /// It runs, and first gets this signal; 0 for none.
    Run(i32),
    /// It stays stopped until SIGCONT: job control stopped it, and not we.
    Listen,
}

/// What a thread does, as far as was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It runs, or is stopped by job control.
    Free,
    /// It stands still until this is done.
    Held(Onward),
}

#[derive(Debug, Clone, Copy)]
struct Tracee {
    state: State,
    /// Not the first of its process.
    thread: bool,
}

/// All that is known to live.
#[derive(Debug, Default)]
pub struct Tracees {
    living: HashMap<i32, Tracee>,
    frozen: bool,
}

impl Tracees {
    /// A tree of one process.
    pub fn of(root: Pid) -> Self {
        let first = Tracee { state: State::Free, thread: false };
        Self { living: HashMap::from([(root.as_raw(), first)]), frozen: false }
    }

    /// One has ended and was reaped.
    pub fn ended(&mut self, pid: i32) {
        self.living.remove(&pid);
    }

    /// How many processes live.
    pub fn processes(&self) -> usize {
        self.living.values().filter(|tracee| !tracee.thread).count()
    }

    /// One has stopped with this status; it goes on at once, unless all stand still.
    pub fn stopped(&mut self, pid: i32, status: i32) {
        if status >> 16 == EVENT_CLONE
            && let Some(new) = message(pid)
        {
            // It may have been heard of already, and not be known for a thread.
            let made = Tracee { state: State::Free, thread: true };
            self.living.entry(new).or_insert(made).thread = true;
        }
        let onward = onward(status);
        let known = self.living.get(&pid).is_some_and(|known| known.thread);
        let state = if self.frozen { State::Held(onward) } else { go_on(pid, onward) };
        self.living.insert(pid, Tracee { state, thread: known });
    }

    /// Has all stop. Those that are made meanwhile are born stopped, and stay so.
    pub fn freeze(&mut self) {
        self.frozen = true;
        self.living.retain(|pid, tracee| {
            // One that ran another program from a thread has the number of its first thread now.
            tracee.state != State::Free
                || ptrace::interrupt(Pid::from_raw(*pid)) != Err(Errno::ESRCH)
        });
    }

    /// Whether each was seen to stand.
    pub fn all_stand(&self) -> bool {
        self.living.values().all(|tracee| tracee.state != State::Free)
    }

    /// Has all go on as they would have.
    pub fn thaw(&mut self) {
        self.frozen = false;
        for (pid, tracee) in &mut self.living {
            if let State::Held(onward) = tracee.state {
                tracee.state = go_on(*pid, onward);
            }
        }
    }
}

/// The number that an event tells.
fn message(pid: i32) -> Option<i32> {
    ptrace::message(Pid::from_raw(pid)).ok()?.try_into().ok()
}

fn go_on(pid: i32, onward: Onward) -> State {
    let pid = Pid::from_raw(pid);
    // An error says that it was killed meanwhile: its end is heard of next.
    let _ = match onward {
        Onward::Run(signal) => ptrace::resume(pid, signal),
        Onward::Listen => ptrace::listen(pid),
    };
    State::Free
}

/// How a thread goes on that stopped with this status of wait(2).
fn onward(status: i32) -> Onward {
    let (signal, event) = (status >> 8 & 0xff, status >> 16);
    match (event, signal) {
        (0, _) => Onward::Run(signal),
        (EVENT_STOP, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) => {
            Onward::Listen
        }
        _ => Onward::Run(0),
    }
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::{EVENT_CLONE, EVENT_STOP, Onward, onward};

    fn status(event: i32, signal: i32) -> i32 {
        event << 16 | signal << 8 | 0x7f
    }

    #[test]
    fn signals_are_passed_on_and_events_are_not() {
        for signal in [1, libc::SIGTRAP, libc::SIGSTOP, 32, 64] {
            assert_eq!(onward(status(0, signal)), Onward::Run(signal));
        }
        assert_eq!(onward(status(EVENT_CLONE, libc::SIGTRAP)), Onward::Run(0));
        assert_eq!(onward(status(EVENT_STOP, libc::SIGTRAP)), Onward::Run(0));
    }

    #[test]
    fn what_job_control_stopped_stays_stopped() {
        for signal in [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
            assert_eq!(onward(status(EVENT_STOP, signal)), Onward::Listen);
        }
    }
}
