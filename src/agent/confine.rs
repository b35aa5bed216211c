//! The last stage before the agent: a process that gives up what the agent must not have, says how far
//! it came, and becomes the agent. Whatever fails on the way, nothing is run.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::ExitCode,
};

use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
    },
    unistd::{Gid, Uid, close, setgid, setgroups, setuid},
};
use rustix::{
    io::Errno,
    process::{getpriority_process, setpriority_process},
    thread::{CapabilitySet, capabilities, remove_capability_from_bounding_set, set_capabilities},
};
use serde::{Deserialize, Serialize};

use super::{
    containment::Containment,
    isolation::{Confinement, Isolation, Limits, facts, forbid, shut_in},
    lifeline::EXIT_SETUP,
};
use crate::config::IsolationMode;

/// Descriptor of the pipe on which this stage reports; it ends when the agent begins.
pub const REPORT_FD: i32 = 3;
/// Descriptor of the pipe on which this stage hears, as JSON up to its end, what holds it and all it will
/// start. Before that it does nothing: whoever traces it has to begin while it has their user.
pub const GATE_FD: i32 = 4;

/// How much lower than that of the worker and the shim the agent's priority is, in nice levels. At 5 one
/// of its processes weighs a third of its shim, which so is heard sooner among thousands.
const NICER: i32 = 5;
/// The lowest priority there is.
const LOWEST: i32 = 19;

/// What this stage says, as one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// So far it came, and the agent is next.
    Confined(Isolation),
    /// Nothing was run: the isolation failed.
    Failed(String),
    /// The program of the agent could not be started.
    NotStarted(String),
}

/// What it is told on its command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// How it has to shut itself in.
    pub confinement: Confinement,
    /// What cgroups bound: the one it was born in, and those it has to enter.
    pub limits: Limits,
    /// The files it has to write itself into.
    pub doors: Vec<PathBuf>,
}

/// Runs the hidden subcommand `confine`; `arguments` are those after its name: the orders, then the
/// program and its arguments. Without a program it only reports.
pub fn run_confine(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let pipes = take_report().and_then(|report| Ok((report, take_gate()?)));
    let Ok((mut pipe, gate)) = pipes else {
        eprintln!("this stage is started by the shim only: its pipes are missing");
        return ExitCode::from(EXIT_SETUP);
    };
    let mut arguments = arguments.into_iter();
    let held = wait_until_held(gate);
    let report = match held.and_then(|held| prepare(arguments.next(), held)) {
        Ok(isolation) => Report::Confined(isolation),
        Err(message) => Report::Failed(message),
    };
    let go = matches!(report, Report::Confined(_));
    say(&mut pipe, &report);
    let Some(program) = arguments.next().filter(|_| go) else { return ExitCode::from(EXIT_SETUP) };
    let error = crate::process::blocking_command(&program)
        .args(arguments)
        .envs(std::env::vars_os())
        .stdin(std::process::Stdio::inherit())
        .exec();
    let hint = hint(&error);
    let message = format!("the agent {} did not start: {error}{hint}", program.display());
    say(&mut pipe, &Report::NotStarted(message));
    ExitCode::from(EXIT_SETUP)
}

/// What a person can do about a program that is there and does not start.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::ENOEXEC) => {
            "; it is built for another kind of machine, or is a script whose first line does not name its \
             interpreter"
        }
        // It was found a moment ago.
        Some(nix::errno::Errno::ENOENT) => {
            "; the interpreter that its first line names, or the loader it was built for, is missing here"
        }
        Some(nix::errno::Errno::EACCES) => {
            "; it or its interpreter may not be run: correct its mode, or name its folder in \
             AWO_AGENT_READ_PATHS"
        }
        _ => "",
    }
}

/// The pipe of the report, closed when the agent begins.
fn take_report() -> io::Result<File> {
    let pipe = OpenOptions::new().write(true).open(format!("/proc/self/fd/{REPORT_FD}"))?;
    close(REPORT_FD)?;
    Ok(pipe)
}

fn take_gate() -> io::Result<File> {
    let pipe = File::open(format!("/proc/self/fd/{GATE_FD}"))?;
    close(GATE_FD)?;
    Ok(pipe)
}

fn wait_until_held(mut gate: File) -> Result<Containment, String> {
    let mut text = Vec::new();
    gate.read_to_end(&mut text).map_err(|error| format!("the gate cannot be read: {error}"))?;
    serde_json::from_slice(&text).map_err(|_| "nothing holds the processes of the agent".to_owned())
}

fn say(pipe: &mut File, report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        // Nobody listens: then nobody waits either.
        let _ = pipe.write_all(&line);
    }
}

fn prepare(orders: Option<OsString>, held: Containment) -> Result<Isolation, String> {
    let orders = orders.ok_or("the orders are missing")?;
    let orders: Orders = serde_json::from_slice(orders.as_encoded_bytes())
        .map_err(|error| format!("the orders cannot be read: {error}"))?;
    let Orders { confinement, limits, doors } = orders;
    let named = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    for door in doors {
        let entered = std::fs::write(&door, "0");
        entered.map_err(|error| format!("{} cannot be entered: {error}", door.display()))?;
    }
    bound(&confinement).map_err(named("the limits of the agent cannot be set"))?;
    yield_to_others().map_err(named("the priority of the agent cannot be lowered"))?;
    prctl::set_no_new_privs().map_err(|error| format!("privileges cannot be given up: {error}"))?;
    let open = confinement.mode == IsolationMode::Off;
    // Paths are looked up with the rights the worker has; the agent gets what was found.
    let grants = confinement.places.grants();
    if !open {
        bar_capabilities().map_err(named("capabilities cannot be barred"))?;
    }
    if let Some(user) = confinement.user {
        become_user(user.uid, user.gid).map_err(named("the agent's user cannot be taken on"))?;
    }
    // Who came from a user with rights still has them.
    give_up_capabilities(!open || confinement.user.is_some())
        .map_err(named("capabilities cannot be given up"))?;
    // Root's number comes back for nobody who has given it up for good.
    if confinement.user.is_some() && setuid(Uid::from_raw(0)).is_ok() {
        return Err("root could be taken back".to_owned());
    }
    if open {
        return Ok(Isolation::off(held.by));
    }
    let in_force = shut_in(&grants, confinement.only_port)?;
    let bound = confinement.only_port.map(|_| confinement.datagrams);
    let syscalls = forbid(in_force.version > 0, bound)?;
    let reached = facts(&confinement, in_force, syscalls, limits, held);
    reached.check(confinement.mode)?;
    Ok(reached)
}

/// Sets the limits of one process; a lower one that holds already stays.
fn bound(confinement: &Confinement) -> io::Result<()> {
    let processes = u64::from(confinement.processes);
    for (resource, most) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, confinement.open_files),
        (Resource::RLIMIT_FSIZE, confinement.file_size),
        (Resource::RLIMIT_NPROC, processes),
    ] {
        let (_, hard) = getrlimit(resource)?;
        setrlimit(resource, most.min(hard), most.min(hard))?;
    }
    Ok(())
}

/// Lets the worker and the shim run first: they end the agent, and must not wait for it.
fn yield_to_others() -> io::Result<()> {
    let now = getpriority_process(None)?;
    Ok(setpriority_process(None, (now + NICER).min(LOWEST))?)
}

/// Takes all rights out of those that any program started from here could get, where this process may do
/// so; where it may not, that no new privileges are had does the same.
fn bar_capabilities() -> io::Result<()> {
    for right in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(right) {
            // The kernel does not know it, or it is not for us to take.
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Gives up every right that root has beyond its number, for good: without new privileges no program brings
/// one back. Where nothing else is taken away, those still go by which root reads the memory and the
/// environment of every process: the worker's holds secrets.
fn give_up_capabilities(all: bool) -> io::Result<()> {
    // Each of the three suffices for the kernel (`may_access_mm`, `ptrace_may_access`).
    let eyes = CapabilitySet::SYS_PTRACE | CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN;
    let mut sets = capabilities(None)?;
    for set in [&mut sets.effective, &mut sets.permitted, &mut sets.inheritable] {
        // Rights that this program does not know of are not kept either.
        *set = if all { CapabilitySet::empty() } else { set.difference(eyes) };
    }
    set_capabilities(None, sets)?;
    // What is neither permitted nor inheritable left the ambient set by itself.
    if all && capabilities(None)?.permitted != CapabilitySet::empty() {
        return Err(io::Error::other("rights are left"));
    }
    Ok(())
}

fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    setgroups(&[])?;
    setgid(Gid::from_raw(gid))?;
    Ok(setuid(Uid::from_raw(uid))?)
}
