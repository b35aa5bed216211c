//! The agent's two output streams on their way to disk, to the verdict and to the consumer.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::AsyncRead,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{output_file::OutputFile, shim_process::AgentPipes};
use crate::{
    agent::{
        interpreter::Interpreter,
        json_lines::JsonLines,
        presets::Preset,
        pump::{self, Progress, Pump},
        report::{Delivered, Failure},
        request::{OutputChunk, OutputStream},
        spool::{SpoolWriter, Written, ship},
    },
    clock::Clock,
    disk,
    domain::{ErrorClass, Redactor},
};

/// How long the streams may stay open after the last process of the tree is gone.
const STREAMS_CLOSE: Duration = Duration::from_secs(3);
/// How long a file that an agent printed to may take to be read to its end: it holds more than a pipe.
const FILE_READ: Duration = Duration::from_mins(1);

/// The two spool files, open.
pub struct Spools {
    stdout: Spool,
    stderr: Spool,
}

struct Spool {
    path: PathBuf,
    writer: SpoolWriter,
    /// Where this start of the agent begins to send.
    from: u64,
}

/// Both streams, flowing.
pub struct Streams {
    stdout: Flow,
    stderr: Flow,
    file: Option<OutputFile>,
    stop: CancellationToken,
    give_up: CancellationToken,
}

struct Flow {
    pump: JoinHandle<pump::Drained>,
    shipper: JoinHandle<u64>,
    written: watch::Receiver<Written>,
}

/// Both streams, ended.
pub struct Drained {
    pub stdout: pump::Drained,
    pub stderr: pump::Drained,
    pub delivered: Delivered,
}

/// The file of standard error that belongs to the file of standard output.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".stderr");
    name.into()
}

/// Sends what is in the spool files and was not taken in time; answers how far it came now. The
/// consumer has some seconds for each chunk, as it had before.
pub async fn deliver_rest(
    path: &Path,
    mut delivered: Delivered,
    output: &mpsc::Sender<OutputChunk>,
) -> Delivered {
    let send = |path: PathBuf, stream, from, bytes| {
        let (_, written) = watch::channel(Written { bytes, complete: true });
        ship(path, stream, from, written, output.clone(), CancellationToken::new())
    };
    let Delivered { stdout_spooled, stdout_sent, stderr_spooled, stderr_sent } = delivered;
    delivered.stdout_sent =
        send(path.to_owned(), OutputStream::Stdout, stdout_sent, stdout_spooled).await;
    delivered.stderr_sent =
        send(beside(path), OutputStream::Stderr, stderr_sent, stderr_spooled).await;
    delivered
}

impl Spools {
    /// Opens `path` and `<path>.stderr`; replaces them unless an earlier start wrote to them.
    pub async fn open(path: &Path, before: Option<Delivered>, limit: u64) -> Result<Self, Failure> {
        let append = before.is_some();
        let sent = before.unwrap_or_default();
        Ok(Self {
            stdout: Spool::open(path.to_owned(), append, sent.stdout_sent, limit).await?,
            stderr: Spool::open(beside(path), append, sent.stderr_sent, limit).await?,
        })
    }

    /// Starts reading both streams, and tells what comes of it.
    pub fn start(
        self,
        pipes: AgentPipes,
        preset: Option<Preset>,
        redactor: &Redactor,
        (progress, heard): (&watch::Sender<Progress>, &watch::Sender<()>),
        clock: &Clock,
        output: mpsc::Sender<OutputChunk>,
    ) -> Streams {
        let (stop, give_up) = (CancellationToken::new(), CancellationToken::new());
        let start = |spool: Spool, stream, output| {
            let written = spool.writer.watch();
            let sent =
                ship(spool.path, stream, spool.from, written.clone(), output, give_up.clone());
            let pump = Pump {
                redact: redactor.stream(),
                lines: JsonLines::new(redactor.clone()),
                interpreter: Interpreter::of(preset.filter(|_| stream == OutputStream::Stdout)),
                spool: spool.writer,
                progress: progress.clone(),
                heard: heard.clone(),
                clock: clock.clone(),
                listen: stream == OutputStream::Stdout,
            };
            (pump, tokio::spawn(sent), written)
        };
        let (pump, shipper, written) = start(self.stdout, OutputStream::Stdout, output.clone());
        let stdout = Flow { pump: drain(pump, pipes.stdout, &stop), shipper, written };
        let (pump, shipper, written) = start(self.stderr, OutputStream::Stderr, output);
        let stderr = Flow { pump: drain(pump, pipes.stderr, &stop), shipper, written };
        Streams { stdout, stderr, file: pipes.file, stop, give_up }
    }
}

fn drain(
    pump: Pump,
    pipe: Option<impl AsyncRead + Send + Unpin + 'static>,
    stop: &CancellationToken,
) -> JoinHandle<pump::Drained> {
    let stop = stop.clone();
    tokio::spawn(async move {
        match pipe {
            Some(pipe) => pump.run(pipe, stop).await,
            None => pump.run(tokio::io::empty(), stop).await,
        }
    })
}

impl Spool {
    async fn open(path: PathBuf, append: bool, from: u64, limit: u64) -> Result<Self, Failure> {
        let writer = SpoolWriter::open(&path, append, limit).await.map_err(|error| {
            let class = if disk::is_full(&error) { ErrorClass::Disk } else { ErrorClass::Invalid };
            let path = path.display();
            Failure::new(class, format!("the output file {path} cannot be written: {error}"))
        })?;
        Ok(Self { path, writer, from })
    }
}

impl Streams {
    /// Ends both streams once no process can write to them, and gives the consumer at most
    /// `delivery` to take the rest.
    pub async fn end(mut self, delivery: Duration) -> Drained {
        let patience = match self.file.take() {
            Some(file) => {
                file.end();
                FILE_READ
            }
            None => STREAMS_CLOSE,
        };
        let closed = async {
            self.stdout.complete().await;
            self.stderr.complete().await;
        };
        if timeout(patience, closed).await.is_err() {
            // Somebody outside the tree was given a copy; what is in the pipe is lost.
            self.stop.cancel();
        }
        let late = self.give_up.clone();
        let deadline = tokio::spawn(async move {
            tokio::time::sleep(delivery).await;
            late.cancel();
        });
        let (stdout, stdout_spooled, stdout_sent) = self.stdout.end().await;
        let (stderr, stderr_spooled, stderr_sent) = self.stderr.end().await;
        deadline.abort();
        let delivered = Delivered { stdout_spooled, stdout_sent, stderr_spooled, stderr_sent };
        Drained { stdout, stderr, delivered }
    }
}

impl Flow {
    async fn complete(&mut self) {
        // An error means that the pump is gone, which is as complete as it gets.
        let _ = self.written.wait_for(|now| now.complete).await;
    }

    async fn end(self) -> (pump::Drained, u64, u64) {
        let drained = self.pump.await.unwrap_or_default();
        let sent = self.shipper.await.unwrap_or_default();
        let spooled = self.written.borrow().bytes;
        (drained, spooled, sent)
    }
}
