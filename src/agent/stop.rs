//! Stops a process with all its threads by SIGSTOP. One thread takes the signal and stops the others
//! with it; while that one waits in the kernel the others run on. A parent waits there from vfork until
//! its child runs another program: for ever, when the child was stopped before.

use std::fs;

use nix::{sys::signal::Signal, unistd::Pid};

use super::process_table::{Process, send};

/// Sends a process what it takes to stop it. `false` when nothing was left to send: until it is
/// continued none of its threads runs code of its own.
pub fn stop(process: &Process) -> bool {
    let threads = process.threads();
    let waits = threads.iter().any(Process::waits_in_kernel);
    let pending = waits && {
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid));
        status.is_ok_and(|status| is_stop_pending(&status))
    };
    let needed = needed(&threads, pending);
    for (thread, signal) in &needed {
        // The kernel takes a thread's id for its process and offers the signal to that thread first.
        send(*thread, *signal);
    }
    !needed.is_empty()
}

/// What it takes to stop these threads of one process, for which a SIGSTOP is pending or not.
fn needed(threads: &[Process], pending: bool) -> Vec<(Pid, Signal)> {
    let mut waiting = threads.iter().filter(|one| one.waits_in_kernel());
    let (waits, another) = (waiting.next(), waiting.next());
    let runs = threads.iter().find(|one| !one.waits_in_kernel() && !one.is_stopped());
    // One that was stopped has told all others to stop before they leave the kernel.
    let told = threads.iter().any(|one| one.state == 'T');
    match (runs, waits) {
        (None, None) => Vec::new(),
        (None, Some(_)) if told || (pending && another.is_none()) => Vec::new(),
        // The signal is with the one that waits, and a second would be dropped: take it back.
        (Some(runs), Some(_)) if pending && !told => {
            vec![(runs.pid, Signal::SIGCONT), (runs.pid, Signal::SIGSTOP)]
        }
        (Some(one), _) | (None, Some(one)) => vec![(one.pid, Signal::SIGSTOP)],
    }
}

/// Whether a SIGSTOP waits for a process to act on it, by its `/proc/<pid>/status`.
fn is_stop_pending(status: &str) -> bool {
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let signals = pending.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    signals.is_some_and(|set| set >> (Signal::SIGSTOP as u32 - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use nix::{
        sys::signal::Signal::{self, SIGCONT, SIGSTOP},
        unistd::Pid,
    };

    use super::{Process, is_stop_pending, needed};

    /// What is needed for threads 1, 2, 3 … in these states.
    fn sent(states: &str, pending: bool) -> Vec<(i32, Signal)> {
        let thread = |(state, pid)| {
            let pid = Pid::from_raw(pid);
            let [parent, group, session] = [0; 3].map(Pid::from_raw);
            Process { pid, parent, group, session, state, thread_count: 1 }
        };
        let threads: Vec<Process> = states.chars().zip(1..).map(thread).collect();
        needed(&threads, pending).into_iter().map(|(pid, signal)| (pid.as_raw(), signal)).collect()
    }

    #[test]
    fn what_runs_is_stopped_and_what_stands_is_left_alone() {
        assert_eq!(sent("S", false), [(1, SIGSTOP)]);
        assert_eq!(sent("R", true), [(1, SIGSTOP)]);
        assert_eq!(sent("TSR", false), [(2, SIGSTOP)]);
        for still in ["", "T", "TTT", "t"] {
            assert_eq!(sent(still, false), [], "{still}");
        }
    }

    #[test]
    fn what_waits_in_the_kernel_stands_when_its_stop_is_ahead_of_it() {
        assert_eq!(sent("D", false), [(1, SIGSTOP)]);
        assert_eq!(sent("D", true), []);
        assert_eq!(sent("DTT", false), []);
        assert_eq!(sent("DDT", false), []);
        // One of the two has the signal, the other knows nothing of it.
        assert_eq!(sent("DD", true), [(1, SIGSTOP)]);
    }

    #[test]
    fn threads_beside_one_that_waits_in_the_kernel_are_stopped() {
        assert_eq!(sent("DS", false), [(2, SIGSTOP)]);
        assert_eq!(sent("DS", true), [(2, SIGCONT), (2, SIGSTOP)]);
        assert_eq!(sent("DtS", true), [(3, SIGCONT), (3, SIGSTOP)]);
        // About to stop with the second: nobody is to be continued for it.
        assert_eq!(sent("DTS", true), [(3, SIGSTOP)]);
    }

    #[test]
    fn a_pending_stop_is_read_from_the_status() {
        let status = |set: &str| format!("SigPnd:\t0000000000040000\nShdPnd:\t{set}\nSigBlk:\t0\n");
        assert!(is_stop_pending(&status("0000000000040000")));
        assert!(is_stop_pending(&status("00000000000c0001")));
        assert!(!is_stop_pending(&status("0000000000020000")));
        assert!(!is_stop_pending("Name:\tx\n"));
    }
}
