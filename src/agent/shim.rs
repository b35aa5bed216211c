//! The process between the worker and an agent. It outlives a worker that dies, so that nobody
//! has to: without it an agent goes on working on an order that belongs to another replica.
//!
//! It is synchronous, has one thread and, where it traces the agent, one more for that alone, and does
//! four things: it holds the lock of the sandbox, starts the agent, stops it where it stands when the
//! lease is not renewed in time, and ends the whole tree of processes when the agent ends, when it is told
//! to, or when the worker is gone.

mod domain;
mod freeze;
mod pipes;
mod ptrace;
mod refusal;
mod setup;
mod start;
mod sweep;
mod tracees;
mod tracer;

use std::{ffi::OsString, fs::File, os::fd::AsFd, process::ExitCode, time::Duration};

use nix::{
    fcntl::Flock,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, killpg},
    unistd::{Pid, getpid},
};

use super::{
    lifeline::{EXIT_LOCKED, EXIT_SETUP, Order, Status},
    process_table::TreeRule,
    users::HeldUser,
};
use crate::clock::boot_time;
pub(super) use freeze::Freezing;
pub(super) use ptrace::seize_alone;
pub(super) use refusal::refused;
pub(super) use setup::{ShimArguments, lock_sandbox};
use start::NotStarted;
use tracer::{News, next_change};

/// Longest wait without looking around, so that a lost wake-up costs a second and not the run.
const TICK: Duration = Duration::from_secs(1);
/// How often a lock that somebody else holds is tried again.
const LOCK_TICK: Duration = Duration::from_millis(50);

/// Runs the hidden subcommand `shim`; `arguments` are those after its name.
pub fn run_shim(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut pipes = match pipes::Pipes::take() {
        Ok(pipes) => pipes,
        Err(error) => {
            eprintln!("the shim is started by the worker only: its pipes are missing: {error}");
            return ExitCode::from(EXIT_SETUP);
        }
    };
    let prepared = ShimArguments::parse(arguments)
        .and_then(|arguments| Ok((arguments, setup::harden().map_err(|e| e.to_string())?)));
    match prepared {
        Ok((arguments, signals)) => ExitCode::from(Shim::new(arguments, pipes, signals).run()),
        Err(message) => {
            pipes.tell(&Status::Setup { message, agent: false });
            ExitCode::from(EXIT_SETUP)
        }
    }
}

/// Why and since when the tree is stopped.
#[derive(Clone, Copy)]
struct Frozen {
    since: Duration,
    missed: bool,
}

/// How far the end has come.
#[derive(Clone, Copy, PartialEq)]
enum Ending {
    Not,
    /// SIGINT was sent; SIGTERM follows at this time.
    Interrupted(Duration),
    /// SIGTERM was sent; SIGKILL follows at this time.
    Terminated(Duration),
    /// Kill what is left.
    Kill,
}

struct Shim {
    arguments: ShimArguments,
    pipes: pipes::Pipes,
    signals: setup::Signals,
    tree: TreeRule,
    freezing: Freezing,
    began: Duration,
    lock: Option<Flock<File>>,
    agent: Option<Pid>,
    /// The agent's own process has been reaped.
    exited: bool,
    deadline: Duration,
    frozen: Option<Frozen>,
    ending: Ending,
    /// When the agent ended or was first told to.
    end_began: Option<Duration>,
    /// Whether the kernel killed for memory, once that can be said.
    out_of_memory: Option<bool>,
    /// How many processes that are not the agent have ended, as far as it was not for a tracer to hear.
    buried: u64,
    /// The user of this run, where it has one of its own.
    user: Option<HeldUser>,
}

impl Shim {
    fn new(arguments: ShimArguments, pipes: pipes::Pipes, signals: setup::Signals) -> Self {
        // Whatever loses its parent comes to the shim, so nothing of the run is anywhere else.
        let root = Some(getpid());
        let tree = TreeRule { root, markers: Vec::new(), spared: None, except: getpid() };
        let freezing = Freezing::of_run(&arguments);
        Self {
            arguments,
            pipes,
            signals,
            tree,
            freezing,
            began: boot_time(),
            lock: None,
            agent: None,
            exited: false,
            deadline: Duration::ZERO,
            frozen: None,
            ending: Ending::Not,
            end_began: None,
            out_of_memory: None,
            buried: 0,
            user: None,
        }
    }

    /// The life of the shim; returns its exit code.
    fn run(&mut self) -> u8 {
        let code = self.live();
        if let Some(Err(message)) = self.user.take().map(HeldUser::give_back) {
            // The note of the user stays: whoever needs the sandbox next takes it back.
            eprintln!("archon-awo: {message}");
        }
        code
    }

    fn live(&mut self) -> u8 {
        while !self.exited && self.ending != Ending::Kill {
            self.wait();
            self.obey();
            if let Err(code) = self.start_when_allowed() {
                return code;
            }
            self.reap();
            self.keep_time();
        }
        self.sweep();
        0
    }

    /// Waits for an order, a signal, or the next thing that is due.
    fn wait(&self) {
        let now = boot_time();
        let due = match self.ending {
            Ending::Interrupted(at) | Ending::Terminated(at) => at,
            _ if self.frozen.is_none() && self.agent.is_some() => self.deadline,
            _ => Duration::MAX,
        };
        let longest = if self.lock.is_none() { LOCK_TICK } else { TICK };
        let wait = due.saturating_sub(now).min(longest) + Duration::from_millis(1);
        let tracer = self.freezing.tracer();
        let ended = tracer.map_or(self.signals.children.as_fd(), |tracer| tracer.bell());
        let mut watched = [
            PollFd::new(self.pipes.lifeline.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.asked.as_fd(), PollFlags::POLLIN),
            PollFd::new(ended, PollFlags::POLLIN),
        ];
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        // An interrupted wait is a short one.
        let _ = poll(&mut watched, timeout);
    }

    fn obey(&mut self) {
        if self.freezing.tracer().is_none() {
            let _ = self.signals.children.read_signal();
        }
        while let Ok(Some(signal)) = self.signals.asked.read_signal() {
            let asked = [Signal::SIGTERM as u32, Signal::SIGINT as u32];
            if asked.contains(&signal.ssi_signo) {
                self.interrupt();
            }
        }
        let (orders, closed) = self.pipes.receive();
        for order in orders {
            match order {
                Order::Deadline(at) => self.extend(at, false),
                Order::Thaw(at) => self.extend(at, true),
                Order::Freeze => self.freeze(false),
                Order::Interrupt => self.interrupt(),
                Order::Kill => self.end_now(),
            }
        }
        if closed {
            // The worker is gone: nobody renews the lease, nobody reads the output.
            self.end_now();
        }
    }

    /// Takes the lock, then starts the agent as soon as a lease covers it.
    fn start_when_allowed(&mut self) -> Result<(), u8> {
        if self.agent.is_some() || self.ending != Ending::Not {
            return Ok(());
        }
        if self.lock.is_none() {
            self.lock = self.arguments.lock().map_err(|message| self.fail(message, false))?;
            if self.lock.is_none() {
                if boot_time().saturating_sub(self.began) < self.arguments.lock_wait {
                    return Ok(());
                }
                self.pipes.tell(&Status::Locked);
                return Err(EXIT_LOCKED);
            }
            self.clear_leftovers();
            self.hand_over().map_err(|failed| self.not_started(failed))?;
            // Not before: what was left is outside of it.
            self.freezing.enter_domain(&self.arguments);
        }
        if self.frozen.is_none() && self.deadline > boot_time() {
            let (pid, isolation) = self.start().map_err(|failed| self.not_started(failed))?;
            self.agent = Some(pid);
            self.freezing.note_isolation(&isolation);
            self.pipes.tell(&Status::Started { pid: pid.as_raw(), isolation });
        }
        Ok(())
    }

    fn not_started(&mut self, failed: NotStarted) -> u8 {
        match failed {
            NotStarted::Busy(message) => {
                self.pipes.tell(&Status::Busy { message });
                EXIT_LOCKED
            }
            NotStarted::Agent(message) => self.fail(message, true),
            NotStarted::Ours(message) => self.fail(message, false),
        }
    }

    fn fail(&mut self, message: String, agent: bool) -> u8 {
        self.pipes.tell(&Status::Setup { message, agent });
        EXIT_SETUP
    }

    /// Moves the deadline; continues a stopped tree when that is what the order means.
    fn extend(&mut self, at: u64, thaw: bool) {
        self.deadline = Duration::from_nanos(at);
        let ours = self.frozen.is_some_and(|frozen| thaw || frozen.missed);
        if ours && self.deadline > boot_time() {
            self.frozen = None;
            self.freezing.thaw();
            self.pipes.tell(&Status::Thawed);
        }
    }

    fn freeze(&mut self, missed: bool) {
        if self.ending != Ending::Not {
            return self.end_now();
        }
        let stands = self.freezing.freeze(&self.tree, self.agent);
        if self.frozen.is_none() {
            self.frozen = Some(Frozen { since: boot_time(), missed });
            if stands {
                self.pipes.tell(&Status::Frozen { missed });
            }
        } else if let Some(frozen) = &mut self.frozen {
            // Told after having done it alone: only the one who told may undo it.
            frozen.missed &= missed;
        }
    }

    fn hear_tracer(&mut self) {
        for news in self.freezing.news() {
            self.hear(news);
        }
    }

    fn hear(&mut self, news: News) {
        match (news, self.frozen) {
            (News::Ended { code, signal }, _) => self.agent_ended(code, signal),
            (News::Stands, Some(Frozen { missed, .. })) => {
                self.pipes.tell(&Status::Frozen { missed });
            }
            (News::Stands, None) => {}
            (News::Lost, _) => self.end_now(),
        }
    }

    fn agent_ended(&mut self, code: Option<i32>, signal: Option<i32>) {
        self.exited = true;
        self.end_began = self.end_began.or_else(|| Some(boot_time()));
        self.pipes.tell(&Status::Exited { code, signal });
    }

    fn interrupt(&mut self) {
        if self.ending != Ending::Not {
            return;
        }
        let Some(agent) = self.agent.filter(|_| self.frozen.is_none()) else {
            // Nothing runs that could end itself.
            return self.end_now();
        };
        let now = boot_time();
        self.end_began = self.end_began.or(Some(now));
        self.ending = Ending::Interrupted(now + self.arguments.interrupt_grace);
        let _ = killpg(agent, Signal::SIGINT);
    }

    fn end_now(&mut self) {
        self.end_began = self.end_began.or_else(|| Some(boot_time()));
        self.ending = Ending::Kill;
    }

    /// Does what is due: the next signal of the plan, the freeze of an expired lease, its end.
    fn keep_time(&mut self) {
        let now = boot_time();
        match (self.ending, self.agent) {
            (Ending::Interrupted(at), Some(agent)) if now >= at => {
                let _ = killpg(agent, Signal::SIGTERM);
                self.ending = Ending::Terminated(now + self.arguments.terminate_grace);
            }
            (Ending::Terminated(at), _) if now >= at => self.end_now(),
            _ => {}
        }
        if self.exited || self.agent.is_none() {
            return;
        }
        match self.frozen {
            None if now >= self.deadline => self.freeze(true),
            Some(frozen) if now.saturating_sub(frozen.since) >= self.arguments.longest_freeze => {
                self.pipes.tell(&Status::Expired);
                self.end_now();
            }
            // Again, in case something outside continued a part of it.
            Some(_) => {
                self.freezing.freeze(&self.tree, self.agent);
            }
            None => {}
        }
    }

    /// Collects every child that has ended, its own and those it inherited; answers whether any is left.
    fn reap(&mut self) -> bool {
        if self.freezing.tracer().is_some() {
            self.hear_tracer();
            return true;
        }
        loop {
            let (pid, status) = match next_change() {
                Ok(Some(change)) => change,
                Ok(None) => return true,
                Err(error) => return error != rustix::io::Errno::CHILD,
            };
            // What its tracer did not get to answer any more stops and is killed.
            if status.stopped() {
                continue;
            }
            if self.agent.is_some_and(|agent| agent.as_raw() == pid) {
                self.agent_ended(status.exit_status(), status.terminating_signal());
            } else {
                self.buried += 1;
            }
        }
    }
}
