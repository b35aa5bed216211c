//! One run of the `git` program: an environment from nothing, no configuration but ours, bounded
//! output, and no process left behind when its caller goes away.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use command_fds::{CommandFdExt, FdMapping};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{
    Git, GitError, Remote, askpass,
    gate::{Closed, Gate},
    keeper,
    lfs::LFS,
    lock::FileLock,
    other_end::other_end,
    words::{Meaning, foreign_folder, meaning, summary},
};
use crate::{
    disk::{DiskSpace, SystemDisk},
    domain::{Credential, Redactor, Scheme},
    local_remotes::NamedBy,
    process,
};

/// Where git finds its own programs and we find git.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The most that is kept of git's standard error, in bytes; the end counts.
const STDERR: usize = 64 << 10;
/// The most git may print, in bytes: half a million refs.
const STDOUT: usize = 64 << 20;
/// Descriptors git inherits.
const TOKEN_DESCRIPTOR: i32 = 8;
const LOCK_DESCRIPTOR: i32 = 9;

/// Configuration that overrides every file: nothing runs by itself, nothing is asked of others.
const CONFIGURATION: &[&str] = &[
    "protocol.ext.allow=never",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.askPass=",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "gc.auto=0",
    "maintenance.auto=false",
    "credential.helper=",
    "credential.interactive=true",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    // The one filter that stands in a checkout's configuration, for the agent's own git.
    "filter.lfs.process=",
    "filter.lfs.clean=",
    "filter.lfs.smudge=",
    "advice.detachedHead=false",
    // A connection slower than 1 kB/s for a minute is dead.
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
];

/// A git command that is being put together.
pub(super) struct Invocation<'a> {
    git: &'a Git,
    verb: &'static str,
    settings: Vec<String>,
    arguments: Vec<OsString>,
    repository: Option<PathBuf>,
    work_tree: Option<PathBuf>,
    remote: Option<&'a Remote>,
    index: Option<PathBuf>,
    lock: Option<&'a FileLock>,
    ends_with_us: bool,
}

/// What a git command left behind.
pub(super) struct Outcome {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    /// Without secrets.
    pub(super) stderr: String,
    /// A connection that it was not given.
    pub(super) closed: Option<Closed>,
}

impl Git {
    /// Starts putting a git command together.
    pub(super) fn invoke(&self, verb: &'static str) -> Invocation<'_> {
        Invocation {
            git: self,
            verb,
            settings: Vec::new(),
            arguments: Vec::new(),
            repository: None,
            work_tree: None,
            remote: None,
            index: None,
            lock: None,
            ends_with_us: false,
        }
    }
}

impl<'a> Invocation<'a> {
    pub(super) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(super) fn args<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// A setting for this command alone; it overrides what any file says.
    pub(super) fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push(format!("{key}={value}"));
        self
    }

    /// The repository to work in. It must be one the agent cannot write.
    pub(super) fn within(mut self, repository: &Path) -> Self {
        self.repository = Some(repository.to_owned());
        self
    }

    /// The files the repository is about. No agent may have written them.
    pub(super) fn over(mut self, work_tree: &Path) -> Self {
        self.work_tree = Some(work_tree.to_owned());
        self
    }

    /// The index to use instead of the repository's.
    pub(super) fn by_index(mut self, index: &Path) -> Self {
        self.index = Some(index.to_owned());
        self
    }

    /// Lets the command talk to `remote`; without this it may only touch local folders.
    pub(super) fn with_remote(mut self, remote: &'a Remote) -> Self {
        self.remote = Some(remote);
        self
    }

    /// Keeps `lock` for as long as the command or a child of it runs, even if we are killed.
    pub(super) fn holding(mut self, lock: &'a FileLock) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Has the command end with this process, however that ends: it writes many files.
    pub(super) fn ending_with_us(mut self) -> Self {
        self.ends_with_us = true;
        self
    }

    /// Runs the command; it failed when its status says so.
    pub(super) async fn run(self) -> Result<Outcome, GitError> {
        let limit = self.git.settings().fetch_timeout;
        let verb = self.verb;
        match tokio::time::timeout(limit, self.run_unlimited()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(GitError::Timeout { verb, after: limit }),
        }
    }

    /// Runs the command and turns a failure into an error.
    pub(super) async fn check(self) -> Result<Outcome, GitError> {
        let verb = self.verb;
        let url = self.remote.map(|remote| remote.url.to_string());
        let repository = self.repository.clone();
        let root = Some(self.git.volume().root().to_owned());
        let outcome = self.run().await?;
        if outcome.status.success() {
            return Ok(outcome);
        }
        let error = outcome.failure(verb, url.as_deref(), repository.as_deref());
        let root = root.filter(|_| error.may_be_for_want_of_space());
        let look = move || root.and_then(|root| SystemDisk.space(&root).ok());
        let space = tokio::task::spawn_blocking(look).await.ok().flatten();
        match space {
            // Not every word of git for it is known, and a cache must not be thrown away for it.
            Some(space) if space.is_full() => {
                let (doing, detail) = (format!("git {verb}"), error.to_string());
                Err(GitError::DiskFull { doing, detail })
            }
            _ => Err(error),
        }
    }

    async fn run_unlimited(self) -> Result<Outcome, GitError> {
        if let Some(remote) = self.remote {
            self.git.require_remote(remote, NamedBy::Order).await?;
        }
        let program = self.git.settings().binary.clone();
        let gate = Gate::of(self.git.settings(), self.verb, self.remote).await?;
        let mut command = self.command(gate.as_ref())?;
        // Held until the command has ended; its other end tells the keeper that we are gone.
        let lifeline = if self.ends_with_us {
            let (end, ours) = io::pipe().map_err(|error| GitError::Unusable(error.to_string()))?;
            command.stdin(Stdio::from(end));
            Some(ours)
        } else {
            None
        };
        let mut child = command.spawn().map_err(|source| GitError::NoGit { program, source })?;
        // Dropped before the child: the group is killed while its leader's number is still taken.
        let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
        // With it go our copies of the descriptors the child inherited.
        drop(command);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (stdout, stderr) = tokio::join!(head(stdout), tail(stderr));
        let waited = child.wait().await;
        drop(lifeline);
        group.0 = None;
        let status = waited.map_err(|source| GitError::NoGit { program: "git".into(), source })?;
        let stderr = self.without_secrets(&String::from_utf8_lossy(&stderr));
        let not_started =
            self.ends_with_us && status.code() == Some(i32::from(keeper::NOT_STARTED));
        if not_started && stderr.contains(keeper::SAYS) {
            let program = self.git.settings().binary.clone();
            return Err(GitError::NoGit { program, source: io::ErrorKind::NotFound.into() });
        }
        let closed = gate.and_then(|gate| gate.closed());
        Ok(Outcome {
            status,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr,
            closed,
        })
    }

    /// The program to start. Git-lfs goes past every proxy to hosts on loopback, so it starts in a process that
    /// reaches no port but those it may (where the kernel can).
    fn program(&self, gate: Option<&Gate>) -> tokio::process::Command {
        let settings = self.git.settings();
        let ports = match (gate, self.verb) {
            (Some(gate), LFS) => gate.ports(),
            _ if self.ends_with_us => {
                let mut keeper = process::command(&settings.this_binary);
                keeper.arg(keeper::ROLE).arg(&settings.binary);
                return keeper;
            }
            _ => return process::command(&settings.binary),
        };
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let mut command = process::command(&settings.this_binary);
        command.arg("reach").arg(ports.join(",")).arg(&settings.binary);
        command
    }

    fn command(&self, gate: Option<&Gate>) -> Result<tokio::process::Command, GitError> {
        let settings = self.git.settings();
        let mut command = self.program(gate);
        let place = self.work_tree.as_ref().or(self.repository.as_ref());
        command
            .envs(settings.environment.iter().map(|(name, value)| (name, value)))
            .env("PATH", PATH)
            .env("HOME", &settings.home)
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_ALLOW_PROTOCOL", "file")
            // What a repository says about where its missing objects are would be run.
            .env("GIT_NO_LAZY_FETCH", "1")
            .current_dir(place.unwrap_or(&settings.home))
            .process_group(0);
        if let Some(repository) = &self.repository {
            command.env("GIT_DIR", repository);
        }
        if let Some(work_tree) = &self.work_tree {
            command.env("GIT_WORK_TREE", work_tree);
        }
        if let Some(index) = &self.index {
            command.env("GIT_INDEX_FILE", index);
        }
        if let Some(file) = &settings.ca_file {
            command.env("GIT_SSL_CAINFO", file);
        }
        for setting in CONFIGURATION.iter().copied().chain(self.settings.iter().map(String::as_str))
        {
            command.arg("-c").arg(setting);
        }
        if let Some(gate) = gate {
            command.arg("-c").arg(format!("http.proxy=http://127.0.0.1:{}", gate.port()));
        }
        let mut descriptors = Vec::new();
        if let Some(remote) = self.remote.filter(|remote| remote.url.scheme() == Scheme::Https) {
            command.env("GIT_ALLOW_PROTOCOL", "https");
            if let Some(credential) = &remote.credential {
                command.arg("-c").arg(format!("credential.username={}", credential.user));
                let pipe = askpass::pipe(&credential.password)
                    .map_err(|error| GitError::Unusable(error.to_string()))?;
                descriptors.push((pipe, TOKEN_DESCRIPTOR));
                command
                    .env(askpass::USER, &credential.user)
                    .env("GIT_ASKPASS", &settings.this_binary)
                    .env(askpass::DESCRIPTOR, TOKEN_DESCRIPTOR.to_string())
                    .env(askpass::HOST, remote.url.host());
            }
        }
        if let Some(lock) = self.lock {
            let shared =
                lock.share().map_err(GitError::file("share the lock of", &settings.home))?;
            descriptors.push((shared, LOCK_DESCRIPTOR));
        }
        let mapping = |(parent_fd, child_fd): (OwnedFd, i32)| FdMapping { parent_fd, child_fd };
        command
            .fd_mappings(descriptors.into_iter().map(mapping).collect())
            .map_err(|error| GitError::Unusable(error.to_string()))?;
        command.arg(self.verb).args(other_end(self.verb, self.remote)).args(&self.arguments);
        Ok(command)
    }

    fn without_secrets(&self, text: &str) -> String {
        let text = self.git.redactor().text(text);
        match self.remote.and_then(|remote| remote.credential.as_ref()) {
            Some(Credential { password, .. }) => {
                let known = Redactor::new([password.clone()]).text(&text);
                known.replace(password.expose_secret(), "[redacted]")
            }
            None => text,
        }
    }
}

impl Outcome {
    /// The failure this outcome stands for.
    pub(super) fn failure(
        &self,
        verb: &'static str,
        url: Option<&str>,
        repository: Option<&Path>,
    ) -> GitError {
        let detail = summary(&self.stderr);
        let path = || repository.map(Path::to_owned).unwrap_or_default();
        match (&self.closed, url) {
            (Some(Closed::Host(host)), Some(url)) => {
                let url = url.to_owned();
                return GitError::LedAway { url, host: host.clone() };
            }
            (Some(Closed::Failed(reason)), Some(url)) => {
                let (url, detail) = (url.to_owned(), reason.clone());
                return GitError::Unreachable { url, detail };
            }
            _ => {}
        }
        match (meaning(&self.stderr), url) {
            (Some(Meaning::Full), _) => GitError::DiskFull { doing: format!("git {verb}"), detail },
            (Some(Meaning::Damaged), _) => GitError::DamagedCache { path: path(), detail },
            (Some(Meaning::Auth), Some(url)) => GitError::Auth { url: url.to_owned(), detail },
            (Some(Meaning::NotFound), Some(url)) => GitError::NotFound { url: url.to_owned() },
            (Some(Meaning::Network), Some(url)) => {
                GitError::Unreachable { url: url.to_owned(), detail }
            }
            (Some(Meaning::Server), Some(url)) => {
                GitError::ServerFailed { url: url.to_owned(), detail }
            }
            (Some(Meaning::TooLarge), Some(url)) => GitError::TooLarge { url: url.to_owned() },
            (Some(Meaning::Certificate), Some(url)) => {
                GitError::Certificate { url: url.to_owned(), detail }
            }
            (Some(Meaning::Owner), _) => {
                let folder = foreign_folder(&self.stderr).map_or_else(path, PathBuf::from);
                GitError::ForeignFolder { folder, user: nix::unistd::geteuid().as_raw() }
            }
            _ => GitError::Failed { verb, detail },
        }
    }
}

/// The process group of a command. Killed when dropped, so that git's helpers die with it.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may have ended by itself, which is as good.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

async fn head(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    read(pipe, |chunk| {
        let room = STDOUT.saturating_sub(kept.len()).min(chunk.len());
        kept.extend_from_slice(&chunk[..room]);
    })
    .await;
    kept
}

async fn tail(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept: Vec<u8> = Vec::new();
    read(pipe, |chunk| {
        kept.extend_from_slice(chunk);
        if kept.len() > 2 * STDERR {
            kept.drain(..kept.len() - STDERR);
        }
    })
    .await;
    kept
}

/// Reads until every process that holds the other end is gone.
async fn read(pipe: Option<impl AsyncRead + Unpin>, mut keep: impl FnMut(&[u8])) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 16 << 10];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => keep(&buffer[..count]),
        }
    }
}
