//! Starts the agent: in its cgroups, as its user, through the stage that shuts it in.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, SigmaskHow, Signal, kill},
    unistd::Pid,
};
use rustix::{
    fs::{AtFlags, Gid, Uid, chownat},
    io::Errno,
};

use super::{Shim, setup};
use crate::{
    agent::{
        confine::{GATE_FD, Orders, REPORT_FD, Report},
        isolation::{AgentUser, Isolation},
        users::{NoUser, let_through},
    },
    clock::boot_time,
    disk::{
        About, Beneath, Kind,
        beneath::{LOOK, open_at},
    },
};

/// Longest wait for the agent to be shut in; it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no agent.
pub enum NotStarted {
    /// Something of ours failed.
    Ours(String),
    /// Its program could not be started.
    Agent(String),
    /// Others have what it needs.
    Busy(String),
}

impl From<String> for NotStarted {
    fn from(message: String) -> Self {
        Self::Ours(message)
    }
}

impl From<NoUser> for NotStarted {
    fn from(why: NoUser) -> Self {
        match why {
            NoUser::Taken(message) => Self::Busy(message),
            NoUser::Failed(message) => Self::Ours(message),
        }
    }
}

impl Shim {
    /// Starts the agent with the shim's own environment and standard streams, which the worker
    /// made for it, and lets go of the streams so that their end is the end of the tree.
    pub(super) fn start(&mut self) -> Result<(Pid, Isolation), NotStarted> {
        // What this is depends on what AWO_FREEZER says, which is the agent's affair and not ours.
        self.freezing.enter().map_err(NotStarted::Agent)?;
        let started = self.spawn();
        if let Err(message) = self.freezing.leave() {
            // Frozen together with its agent, the shim would watch nothing.
            self.sweep_tree();
            return Err(message.into());
        }
        let confined = started.and_then(|(pid, report)| {
            let heard = hear(report);
            if heard.is_err() {
                let _ = kill(pid, Signal::SIGKILL);
                self.reap();
            }
            heard.map(|isolation| (pid, isolation))
        });
        if confined.is_err() {
            self.sweep_tree();
        }
        confined
    }

    /// Makes the sandbox the agent's, where it has another user.
    pub(super) fn hand_over(&mut self) -> Result<(), NotStarted> {
        let (confinement, root) = (&mut self.arguments.confinement, &self.arguments.sandbox_root);
        if let Some(users) = &confinement.users {
            let held = users.take(root, &confinement.places.own)?;
            confinement.user = Some(held.user);
            self.user = Some(held);
        } else if let Some(user) = confinement.user {
            let given = give_to(user, &confinement.places.own);
            given
                .and_then(|()| let_through(user, root))
                .map_err(|error| format!("the sandbox cannot be given to the agent: {error}"))?;
        }
        Ok(())
    }

    fn spawn(&mut self) -> Result<(Pid, io::PipeReader), NotStarted> {
        let limits = self.freezing.bound(&self.arguments);
        let confinement = self.arguments.confinement.clone();
        let orders = Orders { confinement, limits: limits.limits, doors: limits.doors() };
        let orders = serde_json::to_string(&orders).map_err(|error| error.to_string())?;
        let failed = |error: io::Error| format!("the agent cannot be shut in: {error}");
        let (report, report_end) = io::pipe().map_err(failed)?;
        let (gate_end, mut gate) = io::pipe().map_err(failed)?;
        let mut command = crate::process::blocking_command("/proc/self/exe");
        command
            .arg("confine")
            .arg(orders)
            .arg(&self.arguments.program)
            .args(&self.arguments.arguments)
            .envs(std::env::vars_os())
            .stdin(Stdio::inherit())
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit())
            .process_group(0)
            .fd_mappings(vec![
                FdMapping { parent_fd: OwnedFd::from(report_end), child_fd: REPORT_FD },
                FdMapping { parent_fd: OwnedFd::from(gate_end), child_fd: GATE_FD },
            ])
            .map_err(|error| error.to_string())?;
        // A child inherits what its parent blocks, and would never hear that it shall end. For this
        // moment a signal from outside, which nothing of ours sends, could end the shim.
        let masked = |error: nix::Error| format!("the signal mask cannot be changed: {error}");
        let own = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK).map_err(masked)?;
        let child = command.spawn();
        own.thread_set_mask().map_err(masked)?;
        let child = child.map_err(failed)?;
        // The command holds the other end of the pipe.
        drop(command);
        setup::let_go_of_streams();
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(|error| error.to_string())?);
        // It waits at the gate until it is held, and ends there when it cannot be.
        let held = self.freezing.hold(pid).map_err(NotStarted::Agent)?;
        let words = serde_json::to_vec(&held).map_err(|error| error.to_string())?;
        // A stage that is gone does not report either.
        let _ = gate.write_all(&words);
        Ok((pid, report))
    }
}

/// Reads what the stage says until its pipe is closed, which is when the agent begins.
fn hear(mut report: io::PipeReader) -> Result<Isolation, NotStarted> {
    let (mut text, mut chunk, began) = (Vec::new(), [0; 4096], boot_time());
    loop {
        let left = PATIENCE.saturating_sub(boot_time().saturating_sub(began));
        if left.is_zero() {
            return Err(NotStarted::Ours("the agent could not be shut in within 20 s".to_owned()));
        }
        let mut watched = [PollFd::new(report.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) | Err(_) => continue,
            Ok(_) => {}
        }
        match report.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => text.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(NotStarted::Ours(error.to_string())),
        }
    }
    let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    // The last line counts: that nothing was started follows that all was ready.
    match lines.next_back().map(serde_json::from_slice) {
        Some(Ok(Report::Confined(isolation))) => Ok(isolation),
        Some(Ok(Report::NotStarted(message))) => Err(NotStarted::Agent(message)),
        Some(Ok(Report::Failed(message))) => Err(NotStarted::Ours(message)),
        Some(Err(error)) => Err(NotStarted::Ours(format!("the report cannot be read: {error}"))),
        None => {
            Err(NotStarted::Ours("the stage that shuts the agent in ended silently".to_owned()))
        }
    }
}

/// Makes the agent's folders its user's. No process of an agent lives, or its shim would hold the lock; if one
/// does all the same, no name that it moves leads outside.
fn give_to(user: AgentUser, folders: &[PathBuf]) -> io::Result<()> {
    for folder in folders {
        let (Some(above), Some(name)) = (folder.parent(), folder.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let (above, name) = (Beneath::open(above)?, Path::new(name));
        // The folder itself comes last: when it is the user's, so is everything that was in it.
        if above.about(name)?.user != user.uid {
            give_tree(user, &above, name)?;
        }
        // What the worker has put there since.
        let folder = above.folder(name)?;
        for name in names_in(&folder)? {
            give(user, &folder, Path::new(&name))?;
        }
    }
    Ok(())
}

fn give_tree(user: AgentUser, above: &Beneath, name: &Path) -> io::Result<()> {
    let folder = above.folder(name)?;
    for name in names_in(&folder)? {
        let name = Path::new(&name);
        if folder.about(name)?.kind == Kind::Folder {
            give_tree(user, &folder, name)?;
        } else {
            give(user, &folder, name)?;
        }
    }
    give(user, above, name)
}

fn names_in(folder: &Beneath) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    folder.names(|name| {
        names.push(name.to_owned());
        true
    })?;
    Ok(names)
}

/// A link itself is given, never what it leads to; a file with other names is nobody's to give, and neither is
/// another mount.
fn give(user: AgentUser, above: &Beneath, name: &Path) -> io::Result<()> {
    let itself = match open_at(above, name, LOOK) {
        Err(Errno::XDEV) => return Ok(()),
        opened => opened?,
    };
    let about = About::of(&itself)?;
    if about.user == user.uid || (about.kind == Kind::File && about.links > 1) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    Ok(chownat(&itself, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
}
