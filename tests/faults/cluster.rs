//! A private Postgres that keeps what it has promised, and that may be stopped, killed and started
//! again.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use archon_awo::process;
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, chown, geteuid},
};
use sqlx::{Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::process::{Child, Command};

/// Longest time until the server answers, recovery after a kill included.
const START: Duration = Duration::from_mins(1);
const SETTINGS: [&str; 9] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=200",
    "shared_buffers=64MB",
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "jit=off",
    "autovacuum_naptime=5s",
];

/// Whose processes servers are that refuse to run as root.
pub fn server_user() -> anyhow::Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name)? {
            return Ok(Some(user));
        }
    }
    bail!("servers do not run as root, and there is no user postgres or nobody to run them as")
}

/// A program as that user, which ends when this program does.
pub fn server_command(program: &Path) -> anyhow::Result<Command> {
    let mut command = process::command("setpriv");
    command.env("PATH", "/usr/sbin:/usr/bin:/bin").env("LC_ALL", "C").env("TZ", "UTC");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = server_user()? {
        command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
        command.arg("--clear-groups");
    }
    command.arg("--").arg(program);
    Ok(command)
}

/// A folder that the servers' user may write.
pub fn server_folder(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    if let Some(user) = server_user()? {
        chown(folder, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

/// The port of the loopback interface that nobody has right now.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The server.
pub struct Cluster {
    pub port: u16,
    bin: PathBuf,
    folder: PathBuf,
    server: Option<Child>,
}

impl Cluster {
    /// Makes a cluster below `folder` and starts it.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let bin = binaries()?;
        let folder = folder.join("postgres");
        server_folder(&folder)?;
        let mut initdb = server_command(&bin.join("initdb"))?;
        initdb.current_dir(&folder).arg("-D").arg(folder.join("data"));
        // A worker does not start where agents get in without a password.
        let password = folder.join("password");
        fs::write(&password, PASSWORD)?;
        initdb.arg(format!("--pwfile={}", password.display()));
        initdb.args(["-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8"]);
        initdb.args(["--no-locale", "--no-sync"]);
        let made = initdb.output().await?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut cluster = Self { port: free_port()?, bin, folder, server: None };
        cluster.start_again().await?;
        Ok(cluster)
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Connections of the harness' own, which no fault but the server's own end meets.
    pub fn pool(&self) -> PgPool {
        let options = PgPoolOptions::new().max_connections(3).acquire_timeout(START);
        options.connect_lazy(&url(self.port)).expect("the address is our own")
    }

    /// Starts the server and waits until it answers.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        let log = self.folder.join("server.log");
        let began = tokio::time::Instant::now();
        loop {
            let output = fs::File::options().create(true).append(true).open(&log)?;
            let mut command = server_command(&self.bin.join("postgres"))?;
            command.current_dir(&self.folder).arg("-D").arg(self.folder.join("data"));
            command.arg("-p").arg(self.port.to_string());
            command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
            command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
            let mut server = command.spawn().context("setpriv (util-linux) cannot be started")?;
            while server.try_wait()?.is_none() {
                if let Ok(connection) = PgConnection::connect(&url(self.port)).await {
                    let _ = connection.close().await;
                    self.server = Some(server);
                    return Ok(());
                }
                ensure!(began.elapsed() < START, "Postgres does not answer: {}", tail(&log));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // After a kill the old server's processes need a moment to let go of its memory.
            ensure!(began.elapsed() < START, "Postgres does not start: {}", tail(&log));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A fast shutdown: clients are cut off, everything is written.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.end(Signal::SIGINT).await
    }

    /// As if the machine had killed it: nothing is written, no client is told.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.end(Signal::SIGKILL).await
    }

    async fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        let pid = server.id().context("the server has ended by itself")?;
        kill(Pid::from_raw(pid.try_into()?), signal)?;
        let ended = tokio::time::timeout(START, server.wait()).await;
        ended.context("the server did not end")??;
        Ok(())
    }
}

/// The role of the workers: it may do what the owner may, but its connections are limited and counted.
pub const WORKER: &str = "worker";
/// The password of all roles: the servers end with the test.
pub const PASSWORD: &str = "0f7c2b9a51e84d36";

pub fn worker_url(port: u16) -> String {
    format!("postgres://{WORKER}:{PASSWORD}@127.0.0.1:{port}/postgres")
}

pub fn url(port: u16) -> String {
    format!("postgres://postgres:{PASSWORD}@127.0.0.1:{port}/postgres")
}

/// `AWO_PG_BIN`, else the newest that a package has installed.
fn binaries() -> anyhow::Result<PathBuf> {
    let complete = |folder: &PathBuf| folder.join("initdb").is_file();
    if let Some(folder) = std::env::var_os("AWO_PG_BIN").filter(|value| !value.is_empty()) {
        let folder = PathBuf::from(folder);
        ensure!(complete(&folder), "AWO_PG_BIN is {}, which holds no initdb", folder.display());
        return Ok(folder);
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.filter_map(|entry| {
        let number: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((number, entry.path().join("bin")))
    });
    let newest = found.filter(|(_, folder)| complete(folder)).max();
    let missing = "no PostgreSQL server here: apt-get install postgresql, or set AWO_PG_BIN";
    newest.map(|(_, folder)| folder).context(missing)
}

/// The end of a log.
pub fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(15).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
