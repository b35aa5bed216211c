//! How far agents are shut in on this host, asked before the first one starts: by a process that does
//! all of it and then ends, or becomes a program whose start is measured.

use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Stdio},
};

use command_fds::{CommandFdExt, FdMapping};
use nix::unistd::Pid;

use super::{
    cgroup::OwnCgroup,
    cgroup_limits::CgroupLimits,
    confine::{GATE_FD, Orders, REPORT_FD, Report},
    containment::{Containment, Mechanism},
    freezer::find_freezer,
    isolation::{Confinement, Isolation, Limits},
    launch::DEFAULT_PATH,
    shim::{refused, seize_alone},
};
use crate::config::{Freezer, IsolationConfig};

/// Finds out, for agents that are held in the wanted way; the error says why no agent could start.
/// `program` is this very binary. Blocks for some milliseconds.
pub fn find_isolation(
    program: &Path,
    config: &IsolationConfig,
    wanted: Freezer,
) -> Result<Isolation, String> {
    let held = find_freezer(program, wanted)?.containment();
    let confinement = Confinement::of(config)?;
    let id = uuid::Uuid::new_v4().to_string();
    let own = OwnCgroup::find().and_then(|own| own.check().map(|()| own)).ok();
    let run = own.as_ref().map(|own| (own, own.of_run(program, &id)));
    if let Some((_, run)) = &run {
        // Without it there are no bounds by it, which is what the answer then says.
        let _ = run.make();
    }
    let limits =
        CgroupLimits::set(run.as_ref().map(|(own, run)| (*own, run)), program, &id, &confinement);
    let orders = Orders { confinement, limits: limits.limits, doors: limits.doors() };
    let answer = ask(program, &orders, &held, None);
    limits.remove();
    if let Some((_, run)) = run {
        run.remove();
    }
    answer
}

/// Runs `agent` without arguments and shut in as one whose sandbox is `folder`, but without a cgroup or
/// a shim, and answers when it has ended. `program` is this very binary. Blocks.
pub fn run_shut_in(
    program: &Path,
    config: &IsolationConfig,
    folder: &Path,
    agent: &Path,
) -> Result<Isolation, String> {
    let mut confinement = Confinement::of(config)?;
    let places = &mut confinement.places;
    places.programs = vec![agent.to_owned()];
    DEFAULT_PATH.clone_into(&mut places.search_path);
    places.own = vec![folder.to_owned()];
    let orders = Orders { confinement, limits: Limits::default(), doors: Vec::new() };
    ask(program, &orders, &Containment { by: Mechanism::Signals, missing: None }, Some(agent))
}

/// Whether a process may trace its own children here; the error says why not. `program` is this very
/// binary. Blocks for some milliseconds.
pub fn may_trace(program: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{} cannot be tried: {error}", program.display());
    let Stage { mut child, gate, report } = Stage::start(program, "", None).map_err(failed)?;
    // It waits at the gate, which is closed before it could be told to go on.
    let traced = i32::try_from(child.id()).map(|pid| seize_alone(Pid::from_raw(pid)));
    drop((gate, report));
    child.wait().map_err(failed)?;
    traced.map_err(|error| error.to_string())?.map_err(refused)
}

/// The stage that shuts agents in, at its gate.
struct Stage {
    child: Child,
    gate: PipeWriter,
    report: PipeReader,
}

impl Stage {
    fn start(program: &Path, orders: &str, agent: Option<&Path>) -> io::Result<Self> {
        let (report, report_end) = io::pipe()?;
        let (gate_end, gate) = io::pipe()?;
        let mut command = crate::process::blocking_command(program);
        command
            .arg("confine")
            .arg(orders)
            .args(agent)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .fd_mappings(vec![
                FdMapping { parent_fd: OwnedFd::from(report_end), child_fd: REPORT_FD },
                FdMapping { parent_fd: OwnedFd::from(gate_end), child_fd: GATE_FD },
            ])
            .map_err(io::Error::other)?;
        // The command holds the other ends of the pipes until it is dropped here.
        Ok(Self { child: command.spawn()?, gate, report })
    }
}

fn ask(
    program: &Path,
    orders: &Orders,
    held: &Containment,
    agent: Option<&Path>,
) -> Result<Isolation, String> {
    let failed = |error: io::Error| format!("{} cannot be tried: {error}", program.display());
    let orders = serde_json::to_string(orders).map_err(|error| error.to_string())?;
    let held = serde_json::to_vec(held).map_err(|error| error.to_string())?;
    let stage = Stage::start(program, &orders, agent).map_err(failed)?;
    let Stage { mut child, mut gate, mut report } = stage;
    let told = gate.write_all(&held);
    drop(gate);
    let mut text = String::new();
    let read = report.read_to_string(&mut text);
    child.wait().map_err(failed)?;
    told.and(read).map_err(failed)?;
    match text.lines().last().map(serde_json::from_str) {
        Some(Ok(Report::Confined(isolation))) => Ok(isolation),
        Some(Ok(Report::Failed(message) | Report::NotStarted(message))) => Err(message),
        Some(Err(error)) => Err(format!("the report cannot be read: {error}")),
        None => Err("the stage that shuts agents in ended silently".to_owned()),
    }
}
