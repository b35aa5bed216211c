//! The rows of the table in `docs/security.md`: what a hostile agent tries, by area as in `attempts/`, and what
//! has to hold it back.

/// What holds an attempt back, as far as a host may lack it.
#[derive(Clone, Copy, PartialEq)]
pub enum Needs {
    /// Our own doing.
    Nothing,
    /// A version of Landlock.
    Landlock(u8),
    /// seccomp.
    Calls,
    /// A bound of processes.
    Processes,
    /// A bound of memory.
    Memory,
    /// Nothing holds it back but another user.
    OtherUser,
}

/// Who has to succeed where nothing shuts the attempts in.
#[derive(Clone, Copy, PartialEq)]
pub enum Control {
    /// Whoever tries.
    Anybody,
    /// Root.
    Root,
    /// Root, in one of the ways: a container may refuse the others by itself.
    OneWay,
    /// It makes no sense there.
    None,
}

pub struct Attempt {
    pub name: &'static str,
    pub words: &'static str,
    pub by: &'static str,
    pub needs: Needs,
    pub control: Control,
}

const fn attempt(
    name: &'static str,
    words: &'static str,
    by: &'static str,
    needs: Needs,
    control: Control,
) -> Attempt {
    Attempt { name, words, by, needs, control }
}

use Control::{Anybody, OneWay, Root};
use Needs::{Calls, Landlock, Nothing, OtherUser};

/// All rows, in the order of the page.
pub fn attempts() -> impl Iterator<Item = &'static Attempt> {
    [PROCESSES, FILES, NETWORK, SECRETS].into_iter().flatten()
}

/// Other processes, calls of the kernel, what may be used up.
const PROCESSES: &[Attempt] = &[
    attempt(
        "worker-environment",
        "read the worker's environment",
        "Landlock; the worker is not dumpable",
        Landlock(1),
        Root,
    ),
    attempt(
        "worker-memory",
        "read or trace the worker's memory: `mem`, `maps`, `process_vm_readv`, `ptrace`",
        "Landlock, seccomp; the worker is not dumpable",
        Landlock(1),
        Root,
    ),
    attempt(
        "worker-descriptors",
        "take the worker's open files: `/proc`, `pidfd_getfd`",
        "Landlock, seccomp",
        Landlock(1),
        Root,
    ),
    attempt("worker-signals", "signal the worker and the shim", "Landlock 6", Landlock(6), Anybody),
    attempt("worker-limits", "lower the limits of the worker", "seccomp", Calls, Root),
    attempt(
        "scheduling",
        "set priority, scheduling, processors and I/O priority of worker, shim and another order's agent",
        "seccomp",
        Calls,
        Root,
    ),
    attempt(
        "other-agent",
        "read the environment and memory of another order's agent, signal it, lower its limits",
        "Landlock 6, seccomp",
        Landlock(6),
        Anybody,
    ),
    attempt(
        "rights-over-users",
        "become another user or group, as root may",
        "the sets of capabilities are empty",
        Calls,
        Root,
    ),
    attempt("namespaces", "mount, make namespaces", "seccomp", Calls, Root),
    attempt("kernel-calls", "keys, BPF, io_uring", "seccomp", Calls, Root),
    attempt("setuid", "run a setuid program as its owner", "`no_new_privs`", Nothing, Root),
    attempt("open-files", "open more files than allowed", "`RLIMIT_NOFILE`", Nothing, Anybody),
    attempt("forks", "fork without end", "`pids.max`, `RLIMIT_NPROC`", Needs::Processes, Anybody),
    attempt(
        "eat",
        "take more memory than allowed",
        "`memory.max`: the run ends as class `oom`",
        Needs::Memory,
        Control::None,
    ),
    attempt(
        "daemon-stays",
        "leave a daemon: forked twice, own session, renamed, environment cleared",
        "the shim is its reaper; the cgroup of the run",
        Nothing,
        Anybody,
    ),
    attempt(
        "daemon-hops",
        "the same, forking on and on so that no process lives long",
        "the shim is its reaper; the cgroup of the run",
        Nothing,
        Anybody,
    ),
];

/// Files of the product, of other orders, of the host.
const FILES: &[Attempt] = &[
    attempt(
        "other-sandbox",
        "list, read and write another order's checkout",
        "Landlock",
        Landlock(1),
        Anybody,
    ),
    attempt(
        "records",
        "read another order's prompts, forge outputs of its own order",
        "Landlock",
        Landlock(1),
        Anybody,
    ),
    attempt("mirror", "read and change the cached mirror", "Landlock", Landlock(1), Anybody),
    attempt(
        "trusted",
        "read and change a trusted repository, from which is pushed",
        "Landlock",
        Landlock(1),
        Anybody,
    ),
    attempt(
        "sandbox-lock",
        "take the lock of its sandbox, write beside its checkout",
        "Landlock",
        Landlock(1),
        Anybody,
    ),
    attempt("config", "read and write the folder of settings", "Landlock", Landlock(1), Anybody),
    attempt("shadow", "read `/etc/shadow`", "Landlock", Landlock(1), Root),
    attempt(
        "write-outside",
        "write to the worker's home, `/tmp`, `/var/tmp`, `/dev/shm`",
        "Landlock",
        Landlock(1),
        Anybody,
    ),
    attempt(
        "move-outside",
        "link, move and remove files outside",
        "Landlock",
        Landlock(1),
        Anybody,
    ),
    attempt(
        "rights-over-files",
        "give its files to another user, open what is closed to everybody, as root may",
        "the sets of capabilities are empty",
        Calls,
        Root,
    ),
    attempt(
        "close-others",
        "close (`chmod`) another order's sandbox and records, and the repositories from which is pushed",
        "another user alone: Landlock does not cover it; what the worker's user closed is opened again",
        OtherUser,
        Anybody,
    ),
    attempt(
        "attributes",
        "write and list extended attributes of another order's file",
        "another user alone: Landlock does not cover it",
        OtherUser,
        Anybody,
    ),
    attempt(
        "change-outside",
        "change mode and times of a file outside that its user owns",
        "another user alone: Landlock does not cover it",
        OtherUser,
        Anybody,
    ),
    attempt(
        "kernel-files",
        "write to `/proc/sys`, to another process's `oom_score_adj`, to the cgroup above",
        "Landlock",
        Landlock(1),
        OneWay,
    ),
    attempt("devices", "make a device", "Landlock, capabilities", Landlock(1), Root),
    attempt("large-file", "write a file larger than allowed", "`RLIMIT_FSIZE`", Nothing, Anybody),
    attempt(
        "fill",
        "fill the disk with many files",
        "`AWO_SANDBOX_QUOTA`, sampled: the run ends as class `disk`",
        Nothing,
        Control::None,
    ),
    attempt(
        "traps",
        "leave links that lead out, closed and deep folders for whoever deletes the sandbox",
        "the removal follows no link; only the sandbox goes",
        Nothing,
        Control::None,
    ),
];

/// Sockets and ports.
const NETWORK: &[Attempt] = &[
    attempt("raw-packets", "send raw packets", "seccomp", Calls, Root),
    attempt(
        "other-ports",
        "reach another port than its proxy's: TCP, MPTCP, Fast Open, UDP",
        "`AWO_AGENT_NETWORK=proxy`: Landlock 4, seccomp",
        Landlock(4),
        Anybody,
    ),
    attempt("terminal", "open somebody's terminal", "Landlock", Landlock(1), Anybody),
    attempt(
        "abstract-socket",
        "connect to an abstract socket of others",
        "Landlock 6",
        Landlock(6),
        Anybody,
    ),
    attempt(
        "path-socket",
        "connect to a socket with a path, of its own user",
        "another user alone: Landlock does not cover it",
        OtherUser,
        Anybody,
    ),
];

/// The token, and what the agent itself was given.
const SECRETS: &[Attempt] = &[
    attempt(
        "token",
        "find the GitHub token in any process, also while git of other orders runs: environments, \
         command lines, pipes",
        "it is in the worker and in a pipe to git alone; Landlock",
        Landlock(1),
        Root,
    ),
    attempt(
        "secret",
        "print a secret in pieces, in base64 (three shifts), hex, URL and JSON code",
        "the log is redacted",
        Nothing,
        Control::None,
    ),
];
