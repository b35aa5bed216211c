//! The calls of ptrace that a tracer of a whole tree needs. The only file with unsafe code: nix continues a
//! process with none but the 31 classic signals, and C libraries end and interrupt threads with others.

#![expect(unsafe_code, reason = "see above; DESIGN allows it in one module")]

use std::ptr;

use nix::{
    errno::Errno,
    libc::{self, c_void},
    sys::ptrace::{self, Options},
    unistd::Pid,
};

/// What the kernel adds to the status of a process that stopped and was not sent a signal.
pub const EVENT_STOP: i32 = libc::PTRACE_EVENT_STOP;

/// Begins to trace a process and everything it will start; all of it is killed when the calling thread
/// ends. It may run on.
pub fn seize(pid: Pid) -> Result<(), Errno> {
    let children =
        Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACECLONE;
    ptrace::seize(pid, children | Options::PTRACE_O_EXITKILL)
}

/// Begins to trace a process alone, to see whether that is allowed.
pub fn seize_alone(pid: Pid) -> Result<(), Errno> {
    ptrace::seize(pid, Options::PTRACE_O_EXITKILL)
}

/// Has a thread stop before it runs any more code of its own.
pub fn interrupt(pid: Pid) -> Result<(), Errno> {
    ptrace::interrupt(pid)
}

/// Continues a thread that stopped, with the signal it was about to get; 0 for none.
pub fn resume(pid: Pid, signal: i32) -> Result<(), Errno> {
    request(libc::PTRACE_CONT, pid, signal)
}

/// Leaves a thread in the stop that job control put it into, and hears of the end of that.
pub fn listen(pid: Pid) -> Result<(), Errno> {
    request(libc::PTRACE_LISTEN, pid, 0)
}

fn request(what: libc::c_uint, pid: Pid, data: i32) -> Result<(), Errno> {
    let data = ptr::without_provenance_mut::<c_void>(usize::try_from(data).unwrap_or_default());
    // SAFETY: for these two requests the kernel ignores the address and takes the data for a number, so it
    // neither reads nor writes memory of this process; a wrong process is answered with an error.
    let answer = unsafe { libc::ptrace(what, pid.as_raw(), ptr::null_mut::<c_void>(), data) };
    Errno::result(answer).map(drop)
}
