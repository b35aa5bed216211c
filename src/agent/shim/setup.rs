//! What the shim does before anything else: its arguments, its own limits, its lock.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use nix::{
    fcntl::{Flock, FlockArg, OFlag},
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid},
};

use crate::{agent::isolation::Confinement, config::Freezer};

/// What the worker tells its shim on the command line. Nothing here is secret: everybody on the
/// machine can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimArguments {
    /// Marks the processes of this run (`AWO_RUN_ID`).
    pub run_id: String,
    /// The sandbox; its file `.lock` is held as long as the shim lives.
    pub sandbox_root: PathBuf,
    /// How long to wait for an earlier shim to let go of the sandbox.
    pub lock_wait: Duration,
    /// From SIGINT to SIGTERM.
    pub interrupt_grace: Duration,
    /// From SIGTERM to SIGKILL.
    pub terminate_grace: Duration,
    /// How long a tree may stay frozen before it is killed.
    pub longest_freeze: Duration,
    /// What freezes it.
    pub freezer: Freezer,
    /// How the agent is shut in.
    pub confinement: Confinement,
    /// The agent's program.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl ShimArguments {
    /// The arguments as they stand on the command line, after the word `shim`.
    pub fn to_command_line(&self) -> Result<Vec<OsString>, String> {
        let confinement = serde_json::to_string(&self.confinement)
            .map_err(|error| format!("a path of the agent is not text: {error}"))?;
        let millis = |time: Duration| OsString::from(time.as_millis().to_string());
        let mut line = vec![
            OsString::from(&self.run_id),
            self.sandbox_root.clone().into_os_string(),
            millis(self.lock_wait),
            millis(self.interrupt_grace),
            millis(self.terminate_grace),
            millis(self.longest_freeze),
            OsString::from(self.freezer.as_str()),
            OsString::from(confinement),
            self.program.clone(),
        ];
        line.extend(self.arguments.iter().cloned());
        Ok(line)
    }

    /// Reads them back.
    pub fn parse(line: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut words = line.into_iter();
        let mut next = |name: &str| {
            words.next().ok_or_else(|| format!("the shim was started without its {name}"))
        };
        let millis = |word: &OsStr, name: &str| {
            let number = word.to_str().and_then(|word| word.parse().ok());
            number
                .map(Duration::from_millis)
                .ok_or_else(|| format!("the shim's {name} {} is no number", word.display()))
        };
        Ok(Self {
            run_id: next("run id")?.to_string_lossy().into_owned(),
            sandbox_root: PathBuf::from(next("sandbox")?),
            lock_wait: millis(&next("lock wait")?, "lock wait")?,
            interrupt_grace: millis(&next("interrupt grace")?, "interrupt grace")?,
            terminate_grace: millis(&next("terminate grace")?, "terminate grace")?,
            longest_freeze: millis(&next("longest freeze")?, "longest freeze")?,
            freezer: next("freezer")?
                .to_str()
                .and_then(|word| Freezer::from_str(word, false).ok())
                .ok_or("the shim was started with a freezer it does not know")?,
            confinement: serde_json::from_slice(next("confinement")?.as_encoded_bytes())
                .map_err(|error| format!("the shim's confinement cannot be read: {error}"))?,
            program: next("program")?,
            arguments: words.collect(),
        })
    }

    /// The environment entry that every process of this run carries.
    pub fn run_marker(&self) -> String {
        format!("AWO_RUN_ID={}", self.run_id)
    }

    /// The environment entry that every process of any run in this sandbox carries.
    pub fn sandbox_marker(&self) -> String {
        format!("AWO_SANDBOX={}", self.sandbox_root.display())
    }

    /// Takes the lock of the sandbox; `None` while somebody else has it.
    pub fn lock(&self) -> Result<Option<Flock<File>>, String> {
        lock_sandbox(&self.sandbox_root)
    }
}

/// Takes the lock of a sandbox, which its shim holds for as long as it lives; `None` while somebody
/// else has it.
pub fn lock_sandbox(root: &Path) -> Result<Option<Flock<File>>, String> {
    let path = root.join(".lock");
    let failed = |error: io::Error| format!("{} cannot be locked: {error}", path.display());
    // An agent that is not shut in can write here: follow no link it may have put in its place.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags.bits())
        .open(&path)
        .map_err(failed)?;
    let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { return Ok(None) };
    // A lock on a file that was replaced meanwhile keeps nobody out: try the new one.
    let same = std::fs::symlink_metadata(&path).map(|now| (now.dev(), now.ino())).ok()
        == lock.metadata().map(|held| (held.dev(), held.ino())).ok();
    Ok(same.then_some(lock))
}

/// The signals that the shim listens to.
pub struct Signals {
    /// Somebody asks for the end.
    pub asked: SignalFd,
    /// A child has ended. With a tracer it is the tracer who reads these.
    pub children: SignalFd,
}

/// Cuts the shim off from the worker's session, makes it the parent of every orphan below it,
/// takes away what the tree must not have, and returns the signals that it listens to.
pub fn harden() -> io::Result<Signals> {
    // The signals are blocked first: from here on none ends the shim but SIGKILL.
    let (mut asked, mut children) = (SigSet::empty(), SigSet::empty());
    children.add(Signal::SIGCHLD);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        asked.add(signal);
    }
    asked.thread_block()?;
    children.thread_block()?;
    setsid()?;
    prctl::set_child_subreaper(true)?;
    prctl::set_no_new_privs()?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    // An agent of the same user must not read or trace the one that watches it.
    prctl::set_dumpable(false)?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    Ok(Signals {
        asked: SignalFd::with_flags(&asked, flags)?,
        children: SignalFd::with_flags(&children, flags)?,
    })
}

/// Points the standard streams nowhere: the agent has its own copies.
pub fn let_go_of_streams() {
    if let Ok(nowhere) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = dup2_stdin(&nowhere);
        let _ = dup2_stdout(&nowhere);
        let _ = dup2_stderr(&nowhere);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Confinement, Freezer, ShimArguments};
    use crate::config::IsolationConfig;

    #[test]
    fn arguments_survive_the_command_line() {
        let arguments = ShimArguments {
            run_id: "r".to_owned(),
            sandbox_root: "/s x".into(),
            lock_wait: Duration::from_millis(1),
            interrupt_grace: Duration::from_secs(2),
            terminate_grace: Duration::from_secs(3),
            longest_freeze: Duration::from_secs(4),
            freezer: Freezer::Cgroup,
            confinement: Confinement::of(&IsolationConfig::default()).unwrap(),
            program: "/bin/agent".into(),
            arguments: vec!["--a".into(), "".into(), "--".into()],
        };
        assert_eq!(ShimArguments::parse(arguments.to_command_line().unwrap()), Ok(arguments));
    }

    #[test]
    fn a_shim_started_by_hand_says_what_is_missing() {
        let error = ShimArguments::parse(["run".into(), "/s".into(), "x".into()]);
        assert!(error.is_err_and(|text| text.contains("lock wait x is no number")));
    }
}
