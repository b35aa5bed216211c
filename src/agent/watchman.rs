//! A small process that outlives its worker: when worker and shim are killed together, as the kernel does when
//! memory is short, it ends what is left in the cgroup of the run. Where agents are traced the kernel does that
//! by itself.

use std::{
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ExitCode, Stdio},
    thread::sleep,
    time::Duration,
};

use nix::sys::signal::{SigSet, Signal};

use super::freezer::{end_orphans, live_runs};
use crate::clock::boot_time;

/// The hidden subcommand.
pub const ROLE: &str = "watchman";

/// What a worker says that has ended its agents itself.
const DISMISSED: u8 = b'd';
/// How long it stays after its worker: shims that live end their agents sooner.
const STAY: Duration = Duration::from_mins(1);
/// Its pauses between two looks begin so short, and grow up to that.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(500)];

/// The worker's hold on it: its end, in whatever way, is what the process waits for.
#[derive(Debug)]
pub struct Watchman {
    child: Child,
}

impl Watchman {
    /// Starts it; `program` is this very binary.
    pub fn start(program: &Path) -> io::Result<Self> {
        let mut command = crate::process::blocking_command(program);
        command.arg(ROLE).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // What is meant for the worker and its group must not reach it.
        Ok(Self { child: command.process_group(0).spawn()? })
    }
}

impl Drop for Watchman {
    fn drop(&mut self) {
        // Nothing of this worker runs any more. One that is gone needs not be told.
        if let Some(mut worker_end) = self.child.stdin.take() {
            let _ = worker_end.write_all(&[DISMISSED]);
        }
        let _ = self.child.wait();
    }
}

/// Runs it.
pub fn run_watchman() -> ExitCode {
    let deaf: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    let _ = deaf.thread_block();
    let mut word = [0];
    if io::stdin().read_exact(&mut word).is_ok() {
        // Only the end of the pipe without a word means that the worker is dead.
        return ExitCode::SUCCESS;
    }
    let (began, [mut pause, longest]) = (boot_time(), PAUSES);
    while end_orphans() > 0 || (live_runs() && boot_time().saturating_sub(began) < STAY) {
        sleep(pause);
        pause = (pause * 2).min(longest);
    }
    ExitCode::SUCCESS
}
