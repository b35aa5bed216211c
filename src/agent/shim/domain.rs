//! A domain of Landlock that holds the shim and all it starts: a signal to every process reaches none outside
//! of it. So a whole tree is stopped and killed by one call, whatever its processes made of their session,
//! group and environment, and no fork escapes: the kernel hands such a signal on to what is being born.

use std::marker::PhantomData;

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::{Pid, getppid},
};

use crate::agent::isolation::scope_signals;

/// Every process but the caller and the first of the machine.
const ALL: Pid = Pid::from_raw(-1);

/// Proof that this thread is in such a domain. It is of this thread alone.
pub struct Domain(PhantomData<*const ()>);

impl Domain {
    /// Enters one, for good; the error says why that cannot be or is not proven. From then on this thread and
    /// what it starts signal nobody outside.
    pub fn enter() -> Result<Self, String> {
        // Whoever started us may be signalled now, and may not be afterwards: otherwise the signal that is meant
        // for a tree would end the machine.
        let parent = getppid();
        kill(parent, None).map_err(|error| format!("nobody is there to prove it by: {error}"))?;
        scope_signals()?;
        match kill(parent, None) {
            Err(Errno::EPERM) => Ok(Self(PhantomData)),
            other => Err(format!("a signal still reaches the worker: {other:?}")),
        }
    }

    /// Sends a signal to everything else that is in it.
    #[expect(
        clippy::unused_self,
        reason = "who has one is in the domain; without it this reaches everybody"
    )]
    pub fn signal_all(&self, signal: Signal) {
        // An error says that nobody was there.
        let _ = kill(ALL, signal);
    }
}
