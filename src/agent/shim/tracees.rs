//! The threads of a traced tree: which live, which stand still, and how each goes on after a stop.

use std::collections::HashMap;

use nix::{errno::Errno, libc, unistd::Pid};

use rustix::process::WaitStatus;

use super::{
    ptrace::{self, EVENT_STOP},
    tracer::change_of,
};

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

/// All that is known to live.
#[derive(Debug, Default)]
pub struct Tracees {
    living: HashMap<i32, State>,
    frozen: bool,
}

impl Tracees {
    /// A tree of one process.
    pub fn of(root: Pid) -> Self {
        Self { living: HashMap::from([(root.as_raw(), State::Free)]), frozen: false }
    }

    /// One has ended and was reaped.
    pub fn ended(&mut self, pid: i32) {
        self.living.remove(&pid);
    }

    /// One has stopped with this status; it goes on at once, unless all stand still.
    pub fn stopped(&mut self, pid: i32, status: i32) {
        let onward = onward(status);
        let state = if self.frozen { State::Held(onward) } else { go_on(pid, onward) };
        self.living.insert(pid, state);
    }

    /// Has all stop. Those that are made meanwhile are born stopped, and stay so.
    pub fn freeze(&mut self) {
        self.frozen = true;
        self.living.retain(|pid, state| {
            // One that ran another program from a thread has the number of its first thread now.
            *state != State::Free || ptrace::interrupt(Pid::from_raw(*pid)) != Err(Errno::ESRCH)
        });
    }

    /// Hears which of those that were told to stop now stand, each by its number: to ask for any child takes
    /// the kernel the longer the more there are. Answers which have ended.
    pub fn hear(&mut self) -> Vec<(i32, WaitStatus)> {
        let free = self.living.iter().filter(|(_, state)| **state == State::Free);
        let told: Vec<i32> = free.map(|(pid, _)| *pid).collect();
        let mut ended = Vec::new();
        for pid in told {
            match change_of(pid) {
                Some(status) if status.stopped() => self.stopped(pid, status.as_raw()),
                Some(status) => {
                    self.ended(pid);
                    ended.push((pid, status));
                }
                None => {}
            }
        }
        ended
    }

    /// Whether all were told to stand still.
    pub fn are_frozen(&self) -> bool {
        self.frozen
    }

    /// Whether each was seen to stand.
    pub fn all_stand(&self) -> bool {
        self.living.values().all(|state| *state != State::Free)
    }

    /// Has all go on as they would have.
    pub fn thaw(&mut self) {
        self.frozen = false;
        for (pid, state) in &mut self.living {
            if let State::Held(onward) = *state {
                *state = go_on(*pid, onward);
            }
        }
    }
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

    use super::{EVENT_STOP, Onward, onward};

    fn status(event: i32, signal: i32) -> i32 {
        event << 16 | signal << 8 | 0x7f
    }

    #[test]
    fn signals_are_passed_on_and_events_are_not() {
        for signal in [1, libc::SIGTRAP, libc::SIGSTOP, 32, 64] {
            assert_eq!(onward(status(0, signal)), Onward::Run(signal));
        }
        assert_eq!(onward(status(libc::PTRACE_EVENT_CLONE, libc::SIGTRAP)), Onward::Run(0));
        assert_eq!(onward(status(EVENT_STOP, libc::SIGTRAP)), Onward::Run(0));
    }

    #[test]
    fn what_job_control_stopped_stays_stopped() {
        for signal in [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
            assert_eq!(onward(status(EVENT_STOP, signal)), Onward::Listen);
        }
    }
}
