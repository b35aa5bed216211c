//! A file in the place of the pipe that an agent prints to: CLI 2.1.138 exits without waiting until its last words are
//! read, and loses what a pipe of any size did not take. A file takes everything at once.
//!
//! The file has no name, so nothing of it is left when the worker dies. What was read of it is given back to the disk,
//! and what an agent prints faster than it can be read, beyond a limit, is passed over.

use std::{
    fs::{File, OpenOptions},
    io::{self, PipeWriter, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::Duration,
};

use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use tokio::net::unix::pipe;

/// Between two looks at a file that does not grow: live output is that late at most.
const PACE: Duration = Duration::from_millis(20);
/// How much is read at a time, in bytes.
const READ: usize = 256 * 1024;
/// What was read is given back to the disk in pieces of this size, in bytes.
const GIVEN_BACK: u64 = 1 << 20;

/// What an agent prints, as it grows. Dropping it ends the reading.
pub struct OutputFile {
    /// Closed when nobody prints any more.
    ended: Sender<()>,
}

impl OutputFile {
    /// Makes a file in `folder` and begins to read it; answers what the agent prints to, and a pipe with what it
    /// printed. Of what nobody has read yet at most `backlog` bytes are kept.
    pub fn create(folder: &Path, backlog: u64) -> io::Result<(Self, OwnedFd, pipe::Receiver)> {
        let file = nameless(folder)?;
        let printed = OwnedFd::from(file.try_clone()?);
        let (reader, writer) = io::pipe()?;
        let reader = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
        let (ended, end) = channel();
        let tail = Tail { file, at: 0, kept_from: 0, backlog, end };
        tokio::task::spawn_blocking(move || {
            if let Err(error) = tail.copy(writer) {
                tracing::debug!(%error, "the output of an agent is not read to its end");
            }
        });
        Ok((Self { ended }, printed, reader))
    }

    /// Says that no process can print any more: the pipe ends behind what is there.
    pub fn end(self) {
        drop(self.ended);
    }
}

/// A file without a name, to which everybody who has it appends.
fn nameless(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(0o600);
    // Exclusive: nor can whoever prints give it one.
    let unnamed = (OFlag::O_TMPFILE | OFlag::O_EXCL).bits();
    let unnamed = options.clone().custom_flags(unnamed).open(folder);
    unnamed.or_else(|_| {
        // Not every file system knows such files.
        let path = folder.join(format!(".output-{}", uuid::Uuid::new_v4()));
        let file = options.create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    })
}

struct Tail {
    file: File,
    at: u64,
    /// What lies before was given back to the disk.
    kept_from: u64,
    backlog: u64,
    end: Receiver<()>,
}

impl Tail {
    fn copy(mut self, mut to: PipeWriter) -> io::Result<()> {
        let mut buffer = vec![0; READ];
        let mut is_last = false;
        loop {
            let size = self.file.metadata()?.len();
            // Whoever prints may have cut it off.
            self.at = self.at.min(size).max(size.saturating_sub(self.backlog));
            match self.file.read_at(&mut buffer, self.at)? {
                0 if is_last => return Ok(()),
                0 => is_last = self.wait(),
                read => {
                    to.write_all(&buffer[..read])?;
                    self.at += read as u64;
                    self.give_back();
                }
            }
        }
    }

    /// Waits for more; answers whether what is there now is all there will be.
    fn wait(&self) -> bool {
        self.end.recv_timeout(PACE) == Err(RecvTimeoutError::Disconnected)
    }

    fn give_back(&mut self) {
        let done = self.at - self.at % GIVEN_BACK;
        if done <= self.kept_from {
            return;
        }
        let (from, length) = (self.kept_from, done - self.kept_from);
        self.kept_from = done;
        if let (Ok(from), Ok(length)) = (from.try_into(), length.try_into()) {
            // A file system that cannot keeps it until the end of the run.
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let _ = fallocate(self.file.as_fd(), hole, from, length);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write, os::unix::fs::MetadataExt, time::Duration};

    use tokio::io::AsyncReadExt;

    use super::OutputFile;

    const MIB: usize = 1 << 20;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_printed_arrives_at_once_and_to_its_end_and_leaves_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let (output, printed, mut pipe) = OutputFile::create(folder.path(), 1 << 30).unwrap();
        let mut printed = File::from(printed);
        let (mut line, second) = ([0; 5], Duration::from_secs(5));
        printed.write_all(b"live\n").unwrap();
        tokio::time::timeout(second, pipe.read_exact(&mut line)).await.unwrap().unwrap();
        assert_eq!(&line, b"live\n");
        let all = vec![b'x'; 8 * MIB];
        printed.write_all(&all).unwrap();
        // Nobody has read, and the printer may be gone.
        let file = printed.try_clone().unwrap();
        drop(printed);
        output.end();
        let mut read = Vec::new();
        tokio::time::timeout(second, pipe.read_to_end(&mut read)).await.unwrap().unwrap();
        assert_eq!(read, all);
        let blocks = file.metadata().unwrap().blocks() * 512;
        assert!(blocks < 2 * MIB as u64, "{blocks} bytes are still on the disk");
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_flood_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let (output, printed, mut pipe) = OutputFile::create(folder.path(), MIB as u64).unwrap();
        let mut printed = File::from(printed);
        for _ in 0..16 {
            printed.write_all(&vec![b'x'; MIB]).unwrap();
        }
        printed.write_all(b"last").unwrap();
        output.end();
        let mut read = Vec::new();
        pipe.read_to_end(&mut read).await.unwrap();
        assert!(read.len() < 4 * MIB && read.ends_with(b"last"), "{}", read.len());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_follows_a_cut_arrives() {
        let folder = tempfile::tempdir().unwrap();
        let (output, printed, mut pipe) = OutputFile::create(folder.path(), 1 << 30).unwrap();
        let mut printed = File::from(printed);
        let (mut all, mut line) = (vec![0; MIB], [0; 5]);
        printed.write_all(&all).unwrap();
        pipe.read_exact(&mut all).await.unwrap();
        printed.set_len(0).unwrap();
        let more = async {
            while printed.write_all(b"more\n").is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let read = tokio::time::timeout(Duration::from_secs(5), pipe.read_exact(&mut line));
        tokio::select! {
            () = more => unreachable!(),
            read = read => read.unwrap().unwrap(),
        };
        assert_eq!(&line, b"more\n");
        drop(output);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_run_that_is_dropped_ends_the_reading() {
        let folder = tempfile::tempdir().unwrap();
        let (output, _printed, mut pipe) = OutputFile::create(folder.path(), 1 << 30).unwrap();
        drop(output);
        let mut read = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), pipe.read_to_end(&mut read)).await;
        assert_eq!(ended.unwrap().unwrap(), 0);
    }
}
