//! The worker's end of a shim: its process, its lifeline, its statuses.

use std::{
    io::{self, PipeWriter, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    process::{ExitStatus, Stdio},
};

use command_fds::{CommandFdExt, FdMapping};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    net::unix::pipe,
    process::{Child, ChildStderr, ChildStdin},
    sync::mpsc,
    task::JoinHandle,
};

use super::output_file::OutputFile;
use crate::{
    agent::{
        adopted,
        launch::Launch,
        lifeline::{LIFELINE_FD, Order, STATUS_FD, Status},
        request::AgentRequest,
        shim::ShimArguments,
    },
    process::command,
};

/// What the pipes hold that the agent prints to, in bytes: the first of these that its user may have.
const PIPE_SIZES: [i32; 4] = [1 << 20, 1 << 19, 1 << 18, 1 << 17];

/// A running shim. Dropping it closes the lifeline, upon which the shim ends the agent.
pub struct ShimProcess {
    child: Child,
    pid: Option<i32>,
    /// Not tokio's pipe: its first write fails until the runtime has looked at it once, and the
    /// first order is the one that starts the agent.
    lifeline: PipeWriter,
    statuses: mpsc::UnboundedReceiver<Status>,
}

/// The agent's three standard streams.
pub struct AgentPipes {
    stdin: Option<ChildStdin>,
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// What the agent prints to, where that is no pipe.
    pub file: Option<OutputFile>,
    pub stderr: Option<ChildStderr>,
}

impl ShimProcess {
    /// Starts `shim` in the checkout with the agent's environment and streams.
    pub fn start(
        shim: &Path,
        arguments: &ShimArguments,
        launch: &Launch,
        request: &AgentRequest,
        backlog: u64,
    ) -> io::Result<(Self, AgentPipes)> {
        let folder = request.spool.parent().filter(|_| launch.prints_to_file);
        let file = folder.map(|folder| OutputFile::create(folder, backlog)).transpose()?;
        let (file, printed, reader) = match file {
            Some((file, printed, reader)) => (Some(file), Stdio::from(printed), Some(reader)),
            None => (None, Stdio::piped(), None),
        };
        // Both pipes close on exec, so no other child of the worker keeps a lifeline open.
        let (lifeline_end, lifeline) = io::pipe()?;
        let (statuses, status_end) = io::pipe()?;
        let mut command = command(shim);
        command
            .arg("shim")
            .args(arguments.to_command_line().map_err(io::Error::other)?)
            .envs(launch.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&request.checkout)
            .stdin(Stdio::piped())
            .stdout(printed)
            // Killing the shim would leave the agent alone; the closed lifeline ends both.
            .kill_on_drop(false)
            .fd_mappings(vec![
                FdMapping { parent_fd: lifeline_end.into(), child_fd: LIFELINE_FD },
                FdMapping { parent_fd: status_end.into(), child_fd: STATUS_FD },
            ])
            .map_err(io::Error::other)?;
        let (mut child, pid) = adopted::start_shim(|| {
            let child = command.spawn()?;
            let pid = child.id().and_then(|id| i32::try_from(id).ok());
            Ok::<_, io::Error>(((child, pid), pid))
        })?;
        // The command holds the shim's ends open until it is dropped.
        drop(command);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        widen(stdout.as_ref().map(AsFd::as_fd));
        widen(stderr.as_ref().map(AsFd::as_fd));
        let stdout = stdout.map(|pipe| Box::new(pipe) as Box<dyn AsyncRead + Send + Unpin>);
        let reader = reader.map(|pipe| Box::new(pipe) as Box<dyn AsyncRead + Send + Unpin>);
        let pipes =
            AgentPipes { stdin: child.stdin.take(), stdout: stdout.or(reader), file, stderr };
        fcntl(&lifeline, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let statuses = listen(pipe::Receiver::from_owned_fd(OwnedFd::from(statuses))?);
        Ok((Self { child, pid, lifeline, statuses }, pipes))
    }

    /// Gives an order. A shim that does not read is dealt with by the time it then takes to end.
    pub fn order(&self, order: Order) {
        if let Err(error) = (&self.lifeline).write_all(order.to_line().as_bytes()) {
            tracing::debug!(?order, %error, "the shim did not take an order");
        }
    }

    /// The next status; `None` after the last one.
    pub async fn status(&mut self) -> Option<Status> {
        self.statuses.recv().await
    }

    /// Waits for the end of the shim.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let ended = self.child.wait().await?;
        if let Some(pid) = self.pid.take() {
            adopted::shim_ended(pid);
        }
        Ok(ended)
    }

    /// Ends a shim that does not end the agent in time.
    pub fn kill(&mut self) {
        if let Err(error) = self.child.start_kill() {
            tracing::warn!(%error, "the shim could not be killed");
        }
    }
}

/// Makes room for what the agent prints faster than it is read.
fn widen(pipe: Option<BorrowedFd<'_>>) {
    let Some(pipe) = pipe else { return };
    let fits = |size: &i32| fcntl(pipe, FcntlArg::F_SETPIPE_SZ(*size)).is_ok();
    if !PIPE_SIZES.iter().any(fits) {
        tracing::debug!("the pipe of an agent's output has the usual size");
    }
}

impl AgentPipes {
    /// Writes the prompt and closes the agent's standard input. An agent that does not read it is
    /// free not to.
    pub fn feed(&mut self, prompt: String) -> JoinHandle<()> {
        let stdin = self.stdin.take();
        tokio::spawn(async move {
            if let Some(mut stdin) = stdin
                && let Err(error) = stdin.write_all(prompt.as_bytes()).await
            {
                tracing::debug!(%error, "the agent did not read its whole prompt");
            }
        })
    }
}

/// Reads statuses until the shim is gone.
fn listen(pipe: pipe::Receiver) -> mpsc::UnboundedReceiver<Status> {
    // Unbounded, but the shim says a handful of things in its life.
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut lines = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Ok(status) = serde_json::from_str(&line)
                && sender.send(status).is_err()
            {
                break;
            }
        }
    });
    receiver
}
