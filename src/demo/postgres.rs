//! A Postgres server of the demo's own: started from the binaries on this machine, on a free port
//! of the loopback interface, in a folder that goes away with it.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::Write,
    net::TcpListener,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, chown, geteuid},
};
use secrecy::SecretString;
use sqlx::{Connection, PgConnection};
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::{
    clock::Clock,
    config::{Host, find_program},
    process,
};

/// Longest time from the start of the server to its first answer.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time it may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Starts before giving up: another program may take the free port first.
const STARTS: u32 = 3;
/// The superuser and the only role.
const ROLE: &str = "archon";

/// Where distributions put each version's binaries, below a folder per version.
const VERSION_FOLDERS: [(&str, &str, &str); 2] =
    [("/usr/lib/postgresql", "", "bin"), ("/usr", "pgsql-", "bin")];

/// A running server. Stopped when dropped.
#[derive(Debug)]
pub struct PrivatePostgres {
    child: Child,
    url: String,
    psql: PathBuf,
}

/// Finds the folder of `initdb` and `postgres`: `AWO_PG_BIN`, else what `pg_config` says, else the
/// newest version that a distribution's package has put on this machine.
pub async fn find_binaries(host: &Host, search_path: &str) -> anyhow::Result<PathBuf> {
    let complete = |folder: &Path| ["initdb", "postgres"].iter().all(|n| folder.join(n).is_file());
    if let Some(folder) = host.variables.get(OsStr::new("AWO_PG_BIN")).filter(|v| !v.is_empty()) {
        let folder = PathBuf::from(folder);
        ensure!(
            folder.is_absolute() && complete(&folder),
            "AWO_PG_BIN is {:?}: expected the absolute path of a folder with initdb and postgres",
            folder.display()
        );
        return Ok(folder);
    }
    if let Ok(pg_config) = find_program(Path::new("pg_config"), search_path)
        && let Ok(output) = process::command(pg_config).arg("--bindir").output().await
    {
        let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end());
        if folder.is_absolute() && complete(&folder) {
            return Ok(folder);
        }
    }
    let mut found = Vec::new();
    for (base, prefix, inner) in VERSION_FOLDERS {
        for entry in fs::read_dir(base).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix)?.parse().ok());
            let folder = entry.path().join(inner);
            if let Some(version) = version.filter(|_: &u32| complete(&folder)) {
                found.push((version, folder));
            }
        }
    }
    found.into_iter().max().map(|(_, folder)| folder).context(
        "no PostgreSQL server is installed here: run `apt-get install postgresql`, or set \
         AWO_PG_BIN to the folder of initdb and postgres",
    )
}

/// Whose processes the server's are: it refuses to run as root.
fn server_user() -> anyhow::Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name)? {
            return Ok(Some(user));
        }
    }
    bail!("Postgres does not run as root, and there is no user postgres or nobody to run it as")
}

impl PrivatePostgres {
    /// Makes the cluster in `folder` unless it is there already, and starts the server.
    pub async fn start(
        bin: &Path,
        folder: &Path,
        log: &Path,
        connections: usize,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let server = Server { bin, folder, log, connections, user: server_user()? };
        let password = server.init().await?;
        let mut tries = 1;
        loop {
            let port = free_port()?;
            let url = format!("postgres://{ROLE}:{password}@127.0.0.1:{port}/postgres");
            let child = server.spawn(port)?;
            let mut postgres = Self { child, url, psql: bin.join("psql") };
            if postgres.answers(clock).await {
                return Ok(postgres);
            }
            drop(postgres);
            if tries == STARTS {
                bail!("Postgres does not start in {}: {}", folder.display(), super::tail(log));
            }
            tries += 1;
        }
    }

    /// The address with its password, which is drawn for this server alone.
    pub fn url(&self) -> SecretString {
        SecretString::from(self.url.as_str())
    }

    /// The `psql` that came with the server, if one did.
    pub fn psql(&self) -> &Path {
        if self.psql.is_file() { &self.psql } else { Path::new("psql") }
    }

    /// Waits for the first answer; false when the server ended or took too long.
    async fn answers(&mut self, clock: &Clock) -> bool {
        let deadline = clock.now() + START_TIMEOUT;
        while clock.now() < deadline {
            if let Ok(connection) = PgConnection::connect(&self.url).await {
                // Nothing depends on a polite goodbye.
                let _ = connection.close().await;
                return true;
            }
            if !matches!(self.child.try_wait(), Ok(None)) {
                return false;
            }
            clock.sleep(Duration::from_millis(30)).await;
        }
        false
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        // Only while it was not waited for is the number surely that of our child.
        let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) else { return };
        // SIGINT is the fast shutdown: clients are cut off, the data is written.
        let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        let pause = Duration::from_millis(20);
        for _ in 0..STOP_TIMEOUT.as_millis() / pause.as_millis() {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(pause);
        }
        // The command kills on drop; its own processes end when they miss it.
    }
}

struct Server<'a> {
    bin: &'a Path,
    folder: &'a Path,
    log: &'a Path,
    connections: usize,
    user: Option<User>,
}

impl Server<'_> {
    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A program of the server, as the server's user.
    fn command(&self, program: &str) -> Command {
        let mut command = process::command(self.bin.join(program));
        command.env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").current_dir(self.folder);
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        // Ctrl-C on the terminal is ours to handle: the workers must stop first.
        command.process_group(0);
        command
    }

    /// Makes the cluster and answers its password.
    async fn init(&self) -> anyhow::Result<String> {
        let file = self.folder.join("password");
        if self.data().join("PG_VERSION").is_file() {
            let password = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            return Ok(password.trim().to_owned());
        }
        let password = Uuid::new_v4().simple().to_string();
        let cannot = || format!("cannot prepare {}", self.folder.display());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.folder)
            .with_context(cannot)?;
        let mut writer =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&file)?;
        writeln!(writer, "{password}").with_context(cannot)?;
        if let Some(user) = &self.user {
            for path in [self.folder, &file] {
                chown(path, Some(user.uid), Some(user.gid)).with_context(cannot)?;
            }
        }
        let output = self
            .command("initdb")
            .args(["--username", ROLE, "--auth", "scram-sha-256", "--pwfile"])
            .arg(&file)
            .args(["--no-locale", "--encoding", "UTF8", "--no-sync", "--pgdata"])
            .arg(self.data())
            .output()
            .await
            .with_context(|| format!("cannot start {}", self.bin.join("initdb").display()))?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "initdb failed: {}", words.trim());
        Ok(password)
    }

    fn spawn(&self, port: u16) -> anyhow::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(self.log);
        let log: File = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-p").arg(port.to_string());
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            // TCP alone: the path of a socket may be too long for the kernel.
            "unix_socket_directories=".to_owned(),
            format!("max_connections={}", self.connections),
            // A power cut may take the demo's data with it.
            "fsync=off".to_owned(),
            "synchronous_commit=off".to_owned(),
            "full_page_writes=off".to_owned(),
        ];
        for setting in settings {
            command.arg("-c").arg(setting);
        }
        command.stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("cannot start {}/postgres", self.bin.display()))
    }
}

/// A port of the loopback interface that nobody has right now.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}
