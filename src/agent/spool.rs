//! Output on disk, and its way to a consumer that may be slow: the agent never waits for either.

use std::{
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::fcntl::OFlag;
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    frames::LONGEST_LINE,
    request::{OutputChunk, OutputStream},
};
use crate::disk;

/// Largest chunk that is sent, in bytes.
const CHUNK: usize = 64 * 1024;
/// How long an unfinished chunk waits for more before it is sent as it is.
const LINGER: Duration = Duration::from_millis(250);
/// ... and an unfinished line, whose rest is likely to come.
const LINGER_IN_LINE: Duration = Duration::from_secs(1);
/// How long the consumer may take for one chunk once the agent has ended. What it does not take
/// stays in the spool file.
const LAST_CALL: Duration = Duration::from_secs(5);

const LINE_NOTICE: &[u8] = b"\n[archon-awo: the rest of a line over 16 MiB was left out]";
const SPOOL_NOTICE: &[u8] = b"\n[archon-awo: output over the limit was left out from here on]\n";

/// How much of a stream is in its file, and whether that is all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    pub bytes: u64,
    pub complete: bool,
}

/// Writes one stream, up to a limit.
pub struct SpoolWriter {
    file: Option<File>,
    written: watch::Sender<Written>,
    limit: u64,
    in_line: usize,
    /// Something was left out.
    pub truncated: bool,
    /// Writing failed because the disk is full.
    pub disk_full: bool,
}

impl SpoolWriter {
    /// Replaces the file at `path`, or goes on at its end. A link in its place is not followed.
    pub async fn open(path: &Path, append: bool, limit: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(!append)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(path)
            .await?;
        let bytes = file.seek(SeekFrom::End(0)).await?;
        let (written, _) = watch::channel(Written { bytes, complete: false });
        let (in_line, truncated, disk_full) = (0, false, false);
        Ok(Self { file: Some(file), written, limit, in_line, truncated, disk_full })
    }

    /// Follows what has been written.
    pub fn watch(&self) -> watch::Receiver<Written> {
        self.written.subscribe()
    }

    /// Writes redacted bytes. When the limit is reached the rest is dropped: the run is worth more than
    /// its log. When the disk is full it is dropped too, and the run is about to be ended.
    pub async fn write(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let mut kept = Vec::with_capacity(bytes.len());
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let ends = piece.ends_with(b"\n");
            let before = self.in_line;
            self.in_line = before.saturating_add(piece.len());
            if self.in_line <= LONGEST_LINE {
                kept.extend_from_slice(piece);
            } else if before <= LONGEST_LINE {
                self.truncated = true;
                kept.extend_from_slice(&piece[..LONGEST_LINE - before]);
                kept.extend_from_slice(LINE_NOTICE);
            }
            if ends {
                if self.in_line > LONGEST_LINE {
                    kept.push(b'\n');
                }
                self.in_line = 0;
            }
        }
        let at = self.written.borrow().bytes;
        let room = usize::try_from(self.limit.saturating_sub(at)).unwrap_or(usize::MAX);
        let full = kept.len() > room;
        if full {
            self.truncated = true;
            kept.truncate(room);
            kept.extend_from_slice(SPOOL_NOTICE);
        }
        let done = match file.write_all(&kept).await {
            Ok(()) => file.flush().await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => self.written.send_modify(|written| written.bytes += kept.len() as u64),
            Err(error) => {
                tracing::warn!(%error, "the spool of an agent's output cannot be written");
                self.disk_full = disk::is_full(&error);
                self.truncated = true;
            }
        }
        if full || self.disk_full {
            self.file = None;
        }
    }

    /// Says that no more comes.
    pub fn finish(&mut self) {
        self.file = None;
        self.written.send_modify(|written| written.complete = true);
    }
}

/// Sends what a spool file holds from `offset` on, until it is complete and all is sent, or the
/// consumer is gone. Returns how far it came.
pub async fn ship(
    path: PathBuf,
    stream: OutputStream,
    mut offset: u64,
    mut written: watch::Receiver<Written>,
    output: mpsc::Sender<OutputChunk>,
    give_up: CancellationToken,
) -> u64 {
    let Ok(mut file) = File::open(&path).await else { return offset };
    if file.seek(SeekFrom::Start(offset)).await.is_err() {
        return offset;
    }
    loop {
        let Ok(now) = written.wait_for(|now| now.bytes > offset || now.complete).await.map(|n| *n)
        else {
            return offset;
        };
        if now.bytes <= offset {
            return offset;
        }
        // Wait for a full chunk, but not for long.
        let full = offset + CHUNK as u64;
        let more = written.wait_for(|now| now.bytes >= full || now.complete);
        let _ = timeout(LINGER, more).await;
        let mut data = read_at_most(&mut file, &written, offset).await;
        if !data.contains(&b'\n') && data.len() < CHUNK {
            let more = written.wait_for(|now| now.bytes >= full || now.complete);
            let _ = timeout(LINGER_IN_LINE, more).await;
            if file.seek(SeekFrom::Start(offset)).await.is_err() {
                return offset;
            }
            data = read_at_most(&mut file, &written, offset).await;
        }
        if data.is_empty() {
            return offset;
        }
        if let Some(end) = data.iter().rposition(|b| *b == b'\n') {
            data.truncate(end + 1);
        }
        let length = data.len() as u64;
        let lines = data.split(|b| *b == b'\n').count() - 1;
        let lines = u32::try_from(lines).unwrap_or(u32::MAX);
        let chunk = OutputChunk { stream, offset, lines, data };
        if file.seek(SeekFrom::Start(offset + length)).await.is_err()
            || !deliver(&output, chunk, &mut written, &give_up).await
        {
            return offset;
        }
        offset += length;
    }
}

async fn read_at_most(file: &mut File, written: &watch::Receiver<Written>, offset: u64) -> Vec<u8> {
    let there = written.borrow().bytes.saturating_sub(offset).min(CHUNK as u64);
    let mut data = Vec::new();
    // A file that became shorter (the agent can reach it) gives what is left of it.
    let _ = file.take(there).read_to_end(&mut data).await;
    data
}

/// Hands over one chunk; waits as long as the agent runs, and a last time after that.
async fn deliver(
    output: &mpsc::Sender<OutputChunk>,
    chunk: OutputChunk,
    written: &mut watch::Receiver<Written>,
    give_up: &CancellationToken,
) -> bool {
    let permit = tokio::select! {
        permit = output.reserve() => permit.ok(),
        () = async {
            let _ = written.wait_for(|now| now.complete).await;
            let _ = timeout(LAST_CALL, give_up.cancelled()).await;
        } => None,
    };
    permit.map(|permit| permit.send(chunk)).is_some()
}
