//! What the workflow asks for, and the channels between it and a run.

use std::{path::PathBuf, time::Duration};

use uuid::Uuid;

use crate::domain::{StepName, Task, WorkOrderId};

/// One run of an agent in one sandbox.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is asked for on its own")]
pub struct AgentRequest {
    /// The order it works on.
    pub order: WorkOrderId,
    /// The step it is for.
    pub step: StepName,
    /// What is asked of it within the step.
    pub task: Task,
    /// Counts the attempts of that step from 1.
    pub attempt: u32,
    /// Marks every process of this run; never used twice.
    pub run_id: Uuid,
    /// Its working directory.
    pub checkout: PathBuf,
    /// The folder of the order; one agent at a time runs in it.
    pub sandbox_root: PathBuf,
    /// Its `HOME`; made when missing.
    pub home: PathBuf,
    /// Its `TMPDIR`; made when missing.
    pub tmp: PathBuf,
    /// Whether both begin empty but for the conversation that goes on: what anybody left there steers nothing.
    pub renew: bool,
    /// The folders of objects that its checkout borrows from, which it may read.
    pub objects: Vec<PathBuf>,
    /// Whether the settings, hooks and servers that its repository brings along are obeyed.
    pub trusted: bool,
    /// What its repository tells agents does not count: no instructions, and no settings and hooks either, however
    /// trusted it is. Somebody whose change is judged has written there.
    pub unguided: bool,
    /// What it is asked to do; given on standard input.
    pub prompt: String,
    /// The id of the conversation, chosen by us.
    pub session: Uuid,
    /// Continue that conversation if its transcript exists.
    pub resume: bool,
    /// The longest it may take, time spent frozen not counted.
    pub hard_timeout: Duration,
    /// The longest it may be silent while no tool runs.
    pub idle_timeout: Duration,
    /// File for the redacted standard output; standard error goes to `<spool>.stderr`. Both are
    /// replaced.
    pub spool: PathBuf,
    /// More environment, such as `TZ` or another `PATH`; cannot replace the `AWO_` names.
    pub extra_env: Vec<(String, String)>,
}

impl AgentRequest {
    /// The folder for what the agent keeps of this conversation: in its home, and nobody else's.
    pub fn session_folder(&self) -> PathBuf {
        let [_, folder] = self.session_folders();
        folder
    }

    /// The same, with the folder above it.
    pub(super) fn session_folders(&self) -> [PathBuf; 2] {
        let all = self.home.join(".conversations");
        let own = all.join(self.session.to_string());
        [all, own]
    }
}

/// What the lease of the order says about its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseSignal {
    /// It is ours until then.
    Held {
        /// When the agent must be frozen unless a later time has been told, as a reading of
        /// [`crate::clock::boot_time`]: an agent must not go on after its machine has slept.
        until: Duration,
    },
    /// It may not be ours any more: freeze the agent now.
    Suspended,
    /// It is not ours: kill the agent now.
    Lost,
}

/// Which of the agent's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of redacted output, at most 64 KiB, ending at a line where possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputChunk {
    /// Where it was printed.
    pub stream: OutputStream,
    /// Where it begins in that stream's spool file, in bytes.
    pub offset: u64,
    /// How many line ends it holds.
    pub lines: u32,
    /// The bytes: any, NUL and broken UTF-8 included.
    pub data: Vec<u8>,
}
