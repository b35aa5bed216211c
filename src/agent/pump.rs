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

/// How much is read at a time, in bytes; the size of a pipe.
const READ: usize = 64 * 1024;
/// How much of the end of standard error is kept for messages, in bytes.
const TAIL: usize = 8 * 1024;
/// How long the beginning of something that may be a secret waits for its rest.
const PAUSE: Duration = Duration::from_secs(1);

/// What the supervisor's timers and early ends depend on.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// When something was last printed.
    pub last_output: Instant,
    /// A tool runs whose result has not been seen.
    pub tool_is_running: bool,
    /// When the result line came.
    pub result_at: Option<Instant>,
    /// The provider refused the credential.
    pub credential_refused: bool,
    /// The output cannot be kept because the disk is full.
    pub disk_full: bool,
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
                self.publish(&conversation, now);
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

    /// Tells the supervisor what it must act on before the stream has ended.
    fn publish(&self, conversation: &Conversation, now: Instant) {
        let refused =
            conversation.provider_error.as_ref().is_some_and(ProviderError::refuses_credential);
        let tool = conversation.tool_is_running();
        let ended = conversation.result.is_some();
        self.progress.send_if_modified(|progress| {
            let before =
                (progress.credential_refused, progress.tool_is_running, progress.result_at);
            progress.credential_refused = refused;
            progress.tool_is_running = tool;
            progress.result_at = if ended { progress.result_at.or(Some(now)) } else { None };
            before != (progress.credential_refused, progress.tool_is_running, progress.result_at)
        });
    }
}

impl Progress {
    /// Nothing printed yet.
    pub fn starting(now: Instant) -> Self {
        Self {
            last_output: now,
            tool_is_running: false,
            result_at: None,
            credential_refused: false,
            disk_full: false,
        }
    }

    /// When silence becomes too long; never while a tool runs or after the result.
    pub fn idle_deadline(&self, idle: Duration) -> Option<Instant> {
        let silent_on_purpose = self.tool_is_running || self.result_at.is_some();
        (!silent_on_purpose).then(|| self.last_output.checked_add(idle)).flatten()
    }
}
