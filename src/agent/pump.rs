//! Empties one of the agent's pipes, always: redacts, spools, and listens to what is said.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::watch,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    conversation::{Conversation, ProviderError},
    frames::Framer,
    interpreter::Interpreter,
    json_lines::JsonLines,
    spool::SpoolWriter,
};
use crate::{clock::Clock, domain::RedactStream};

/// How much is read at a time, in bytes; a quarter of what a pipe holds.
const READ: usize = 256 * 1024;
/// How much of the end of standard error is kept for messages, in bytes.
const TAIL: usize = 8 * 1024;
/// How long the beginning of something that may be a secret waits for its rest.
const PAUSE: Duration = Duration::from_secs(1);

/// What the supervisor's timers and early ends depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// When something was last printed.
    pub last_output: Instant,
    /// A tool or a task runs whose end has not been seen.
    pub work_is_open: bool,
    /// How far it is with its result.
    pub stage: Stage,
    /// The provider refused the credential.
    pub credential_refused: bool,
    /// The output cannot be kept because the disk is full.
    pub disk_full: bool,
}

/// How far an agent is with its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// There is none, or something followed it.
    Working,
    /// It has one, and work is still open.
    Waiting,
    /// It has had nothing more to do than to exit since then.
    Settled(Instant),
}

/// What is left of a stream when it has ended.
#[derive(Default)]
pub struct Drained {
    pub conversation: Conversation,
    /// The agent's own name for it, where it has one.
    pub own_name: Option<String>,
    /// Its last bytes, lossy.
    pub tail: String,
    pub truncated: bool,
    pub disk_full: bool,
}

/// One stream on its way.
pub struct Pump {
    pub redact: RedactStream,
    pub lines: JsonLines,
    pub interpreter: Interpreter,
    pub spool: SpoolWriter,
    pub progress: watch::Sender<Progress>,
    /// Told of everything that comes.
    pub heard: watch::Sender<()>,
    pub clock: Clock,
    /// Whether the lines are the agent's messages (standard output).
    pub listen: bool,
}

impl Pump {
    /// Runs until the stream ends or `stop` says that nothing may be waited for any more.
    pub async fn run(
        mut self,
        mut from: impl AsyncRead + Unpin,
        stop: CancellationToken,
    ) -> Drained {
        let mut conversation = Conversation::default();
        let mut framer = Framer::default();
        let mut tail = Vec::new();
        let mut results = 0;
        let mut buffer = vec![0; READ];
        let mut may_pause = false;
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => Some(read.unwrap_or_default()),
                () = stop.cancelled() => Some(0),
                () = self.clock.sleep(PAUSE), if may_pause => None,
            };
            let now = self.clock.now();
            let clean = match read {
                Some(0) => self.rest(),
                Some(read) => {
                    self.progress.send_modify(|progress| progress.last_output = now);
                    self.heard.send_replace(());
                    let clean = self.redact.push(&buffer[..read]);
                    self.filter(clean)
                }
                None => self.pause(),
            };
            may_pause = read.is_some() && (self.redact.holds() || self.lines.holds());
            self.spool.write(&clean).await;
            if self.spool.disk_full {
                self.progress
                    .send_if_modified(|progress| !std::mem::replace(&mut progress.disk_full, true));
            }
            tail.extend_from_slice(&clean);
            tail.drain(..tail.len().saturating_sub(TAIL));
            if self.listen {
                for frame in framer.push(&clean) {
                    self.interpreter.hear(&frame, &mut conversation);
                }
                let one_more = conversation.results > results;
                results = conversation.results;
                self.publish(&conversation, one_more, now);
            }
            if read == Some(0) {
                break;
            }
        }
        if let Some(frame) = framer.finish() {
            self.interpreter.hear(&frame, &mut conversation);
        }
        self.interpreter.end(&mut conversation);
        self.spool.finish();
        Drained {
            truncated: conversation.truncated || self.spool.truncated,
            disk_full: self.spool.disk_full,
            tail: String::from_utf8_lossy(&tail).into_owned(),
            own_name: self.interpreter.own_name(),
            conversation,
        }
    }

    /// What may be stored of redacted bytes.
    fn filter(&mut self, clean: Vec<u8>) -> Vec<u8> {
        if self.listen { self.lines.push(&clean) } else { clean }
    }

    /// What is held back and may be given out now.
    fn pause(&mut self) -> Vec<u8> {
        let clean = self.redact.pause();
        let mut clean = self.filter(clean);
        clean.extend(self.lines.pause());
        clean
    }

    /// What is held back at the end.
    fn rest(&mut self) -> Vec<u8> {
        let clean = std::mem::take(&mut self.redact).finish();
        let mut clean = self.filter(clean);
        clean.extend(self.lines.finish());
        clean
    }

    /// Tells the supervisor what it must act on before the stream has ended. `one_more` says whether another
    /// result line came.
    fn publish(&self, conversation: &Conversation, one_more: bool, now: Instant) {
        let refused =
            conversation.provider_error.as_ref().is_some_and(ProviderError::refuses_credential);
        let (open, ended) = (conversation.work_is_open(), conversation.result.is_some());
        self.progress.send_if_modified(|progress| {
            let before = *progress;
            progress.credential_refused = refused;
            progress.work_is_open = open;
            progress.stage = match progress.stage {
                _ if !ended => Stage::Working,
                _ if open => Stage::Waiting,
                Stage::Settled(at) if !one_more => Stage::Settled(at),
                _ => Stage::Settled(now),
            };
            before != *progress
        });
    }
}

impl Progress {
    /// Nothing printed yet.
    pub fn starting(now: Instant) -> Self {
        Self {
            last_output: now,
            work_is_open: false,
            stage: Stage::Working,
            credential_refused: false,
            disk_full: false,
        }
    }

    /// When silence becomes too long; never while work is open or after the result.
    pub fn idle_deadline(&self, idle: Duration) -> Option<Instant> {
        let silent_on_purpose = self.work_is_open || self.stage != Stage::Working;
        (!silent_on_purpose).then(|| self.last_output.checked_add(idle)).flatten()
    }

    /// When an agent that has nothing more to do must have exited.
    pub fn exit_deadline(&self, grace: Duration) -> Option<Instant> {
        let Stage::Settled(at) = self.stage else { return None };
        at.checked_add(grace)
    }
}
