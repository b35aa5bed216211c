//! Traces the whole tree of an agent, so that the kernel kills it when the shim ends, whatever ends it and
//! however slow it is: each descendant is traced from its first instruction.
//!
//! Tracing belongs to the thread that began it, so there is one for it, and the end of that thread is how
//! the tree is killed: the kernel then kills all of it in one go, before anything in it can fork.

use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Pid,
};
use rustix::process::{WaitOptions, WaitStatus, wait, waitpid};

use super::{ptrace, refusal::refused, tracees::Tracees};
use crate::clock::boot_time;

/// Longest wait without looking, so that a lost wake-up costs a second and not the run.
const TICK: Duration = Duration::from_secs(1);
/// Longest time until all are seen to stand: one that waits inside the kernel, as a parent does after vfork,
/// stops as soon as it would run code of its own again.
const PATIENCE: Duration = Duration::from_millis(200);
/// How many stops are answered before orders are looked at: a tree that makes them without end must not
/// keep its tracer from hearing that it shall end.
const BATCH: usize = 256;

const FREEZE: u8 = b'f';
const THAW: u8 = b't';

/// What the thread tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The agent's own process has ended.
    Ended {
        /// Its exit code, when it ended by itself.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
    },
    /// Everything stands still.
    Stands,
    /// The thread is gone, and the tree with it.
    Lost,
}

/// A thread that traces a tree. Dropping it kills the tree.
pub struct Tracer {
    /// Its end is the end of the thread.
    orders: PipeWriter,
    news: Receiver<News>,
    /// Readable when there is news.
    bell: PipeReader,
    thread: JoinHandle<()>,
}

impl Tracer {
    /// Traces a child of this process that has not changed its user, from now on; the error says why that
    /// cannot be done.
    pub fn start(agent: Pid) -> Result<Self, String> {
        let failed = |error: io::Error| format!("its tracer cannot be started: {error}");
        let (orders_end, orders) = io::pipe().map_err(failed)?;
        let (bell, bell_end) = io::pipe().map_err(failed)?;
        for end in [orders_end.as_fd(), bell.as_fd(), bell_end.as_fd()] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| failed(e.into()))?;
        }
        let (sender, news) = channel();
        let (begun, has_begun) = channel();
        let work = move || {
            let thread = Thread::begin(agent, orders_end, Bell { news: sender, pipe: bell_end });
            let problem = thread.as_ref().err().cloned();
            let _ = begun.send(problem);
            let _ = thread.map(Thread::run);
        };
        let thread =
            thread::Builder::new().name("tracer".to_owned()).spawn(work).map_err(failed)?;
        match has_begun.recv() {
            Ok(None) => Ok(Self { orders, news, bell, thread }),
            Ok(Some(problem)) => Err(problem),
            Err(_) => Err("its tracer ended silently".to_owned()),
        }
    }

    /// Has everything stop; [`News::Stands`] follows.
    pub fn freeze(&self) {
        self.order(FREEZE);
    }

    /// Has everything go on.
    pub fn thaw(&self) {
        self.order(THAW);
    }

    fn order(&self, order: u8) {
        // A thread that is gone has nothing left to stop or to continue.
        let _ = (&self.orders).write_all(&[order]);
    }

    /// Readable when there is news.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// What has been told since.
    pub fn news(&mut self) -> Vec<News> {
        let mut chunk = [0; 64];
        let gone = loop {
            match self.bell.read(&mut chunk) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        let lost = gone.then_some(News::Lost);
        self.news.try_iter().chain(lost).collect()
    }

    /// Ends the thread, upon which the kernel kills everything it traced; answers what it told last. All of
    /// it is gone when nothing is left to be waited for.
    pub fn end(self) -> Vec<News> {
        let Self { orders, thread, news, .. } = self;
        drop(orders);
        // A thread that failed is gone as well, and so is what it traced.
        let _ = thread.join();
        news.try_iter().collect()
    }
}

/// The way back to the shim.
struct Bell {
    news: Sender<News>,
    pipe: PipeWriter,
}

impl Bell {
    fn ring(&self, news: News) {
        let _ = self.news.send(news);
        // Full: then it has rung already.
        let _ = (&self.pipe).write(&[0]);
    }
}

struct Thread {
    agent: Pid,
    orders: PipeReader,
    bell: Bell,
    signals: SignalFd,
    tracees: Tracees,
    /// Until when it waits for all to stand.
    stand_by: Option<Duration>,
}

impl Thread {
    fn begin(agent: Pid, orders: PipeReader, bell: Bell) -> Result<Self, String> {
        let mut heard = SigSet::empty();
        heard.add(Signal::SIGCHLD);
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&heard, flags)
            .map_err(|error| format!("its tracer hears no signals: {error}"))?;
        ptrace::seize(agent).map_err(refused)?;
        Ok(Self { agent, orders, bell, signals, tracees: Tracees::of(agent), stand_by: None })
    }

    /// Traces until the other end of its orders is closed.
    fn run(mut self) {
        loop {
            let more = if self.tracees.are_frozen() { self.hear_standing() } else { self.answer() };
            self.tell_standing();
            self.wait(if more { Duration::ZERO } else { TICK });
            if self.obey() {
                return;
            }
        }
    }

    fn wait(&self, longest: Duration) {
        let due = self.stand_by.map(|at| at.saturating_sub(boot_time()));
        let wait = due.map_or(longest, |due| due.min(longest));
        let mut watched = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.orders.as_fd(), PollFlags::POLLIN),
        ];
        // An interrupted wait is a short one.
        let _ = poll(&mut watched, PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX));
        // Read before the stops it tells of: one that comes after this rings again.
        let _ = self.signals.read_signal();
    }

    /// Does what was ordered; answers whether to end.
    fn obey(&mut self) -> bool {
        let mut orders = [0; 64];
        loop {
            match self.orders.read(&mut orders) {
                Ok(0) => return true,
                Ok(count) => orders.iter().take(count).for_each(|order| self.follow(*order)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    fn follow(&mut self, order: u8) {
        match order {
            FREEZE => {
                self.tracees.freeze();
                self.stand_by = Some(boot_time() + PATIENCE);
            }
            THAW => {
                self.tracees.thaw();
                self.stand_by = None;
            }
            _ => {}
        }
    }

    fn tell_standing(&mut self) {
        let waits = self.stand_by.is_some_and(|at| boot_time() < at);
        if self.stand_by.is_some() && (!waits || self.tracees.all_stand()) {
            self.stand_by = None;
            self.bell.ring(News::Stands);
        }
    }

    /// Answers what has stopped or ended; whether there may be more.
    fn answer(&mut self) -> bool {
        for _ in 0..BATCH {
            let Ok(Some((pid, status))) = next_change() else { return false };
            if status.stopped() {
                self.tracees.stopped(pid, status.as_raw());
                continue;
            }
            self.tracees.ended(pid);
            self.tell_end(pid, status);
        }
        true
    }

    /// Hears who stands of those that were told to; never whether there may be more, which its signals tell.
    /// What is born meanwhile is born stopped, and is heard of when all go on.
    fn hear_standing(&mut self) -> bool {
        for (pid, status) in self.tracees.hear() {
            self.tell_end(pid, status);
        }
        false
    }

    fn tell_end(&self, pid: i32, status: WaitStatus) {
        if pid == self.agent.as_raw() {
            let (code, signal) = (status.exit_status(), status.terminating_signal());
            self.bell.ring(News::Ended { code, signal });
        }
    }
}

/// The next child or traced thread that has stopped or ended; `None` while there is none, an error when
/// there is no child at all. Threads that are not the first of their process count too.
pub fn next_change() -> Result<Option<(i32, WaitStatus)>, rustix::io::Errno> {
    // Of any child: `waitpid` of the same crate without a number means those of our own process group.
    let change = wait(at_once())?;
    Ok(change.map(|(pid, status)| (pid.as_raw_nonzero().get(), status)))
}

/// The same of this one.
pub fn change_of(pid: i32) -> Option<WaitStatus> {
    let change = waitpid(rustix::process::Pid::from_raw(pid), at_once());
    change.ok().flatten().map(|(_, status)| status)
}

fn at_once() -> WaitOptions {
    let threads_too = WaitOptions::from_bits_retain(libc::__WALL.unsigned_abs());
    WaitOptions::NOHANG | threads_too
}
