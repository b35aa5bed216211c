//! How far agents are shut in on this host, asked before the first one starts: by a process that does
//! all of it and then ends, or becomes a program whose start is measured.

use std::{
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
    process::Stdio,
};

use command_fds::{CommandFdExt, FdMapping};

use super::{
    cgroup::OwnCgroup,
    cgroup_limits::CgroupLimits,
    confine::{Orders, REPORT_FD, Report},
    isolation::{Confinement, Isolation, Limits},
    launch::DEFAULT_PATH,
};
use crate::config::IsolationConfig;

/// Finds out; the error says why no agent could start. `program` is this very binary. Blocks for some
/// milliseconds.
pub fn find_isolation(program: &Path, config: &IsolationConfig) -> Result<Isolation, String> {
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
    let answer = ask(program, &orders, None);
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
    ask(program, &orders, Some(agent))
}

fn ask(program: &Path, orders: &Orders, agent: Option<&Path>) -> Result<Isolation, String> {
    let failed = |error: io::Error| format!("{} cannot be tried: {error}", program.display());
    let orders = serde_json::to_string(orders).map_err(|error| error.to_string())?;
    let (mut report, report_end) = io::pipe().map_err(failed)?;
    let mut command = crate::process::blocking_command(program);
    command
        .arg("confine")
        .arg(orders)
        .args(agent)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .fd_mappings(vec![FdMapping { parent_fd: OwnedFd::from(report_end), child_fd: REPORT_FD }])
        .map_err(|error| error.to_string())?;
    let mut child = command.spawn().map_err(failed)?;
    // The command holds the other end of the pipe.
    drop(command);
    let mut text = String::new();
    let read = report.read_to_string(&mut text);
    child.wait().map_err(failed)?;
    read.map_err(failed)?;
    match text.lines().last().map(serde_json::from_str) {
        Some(Ok(Report::Confined(isolation))) => Ok(isolation),
        Some(Ok(Report::Failed(message) | Report::NotStarted(message))) => Err(message),
        Some(Err(error)) => Err(format!("the report cannot be read: {error}")),
        None => Err("the stage that shuts agents in ended silently".to_owned()),
    }
}
