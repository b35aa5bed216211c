//! pgbouncer in transaction mode, between the workers' proxies and Postgres.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use tokio::{net::TcpStream, process::Child};

use crate::cluster::{PASSWORD, WORKER, free_port, server_command, server_folder, tail};

/// A running pooler; it ends with this value.
pub struct Pooler {
    port: u16,
    _process: Child,
}

impl Pooler {
    pub async fn start(folder: &Path, postgres: u16) -> anyhow::Result<Self> {
        let folder = folder.join("pgbouncer");
        server_folder(&folder)?;
        let port = free_port()?;
        let settings = folder.join("pgbouncer.ini");
        let users = folder.join("users");
        // Fewer server connections than the workers have: sessions are really shared.
        let text = format!(
            "[databases]\npostgres = host=127.0.0.1 port={postgres} user={WORKER} password={PASSWORD}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 8\n\
             max_client_conn = 300\nserver_login_retry = 0.2\nmax_prepared_statements = 0\n\
             query_wait_timeout = 15\n",
            users.display()
        );
        fs::write(&users, format!("\"{WORKER}\" \"{PASSWORD}\"\n"))?;
        // Older versions do not know every setting.
        let text = text.replace("max_prepared_statements = 0\n", "");
        fs::write(&settings, text)?;
        let log = folder.join("pgbouncer.log");
        let output = fs::File::create(&log)?;
        let mut command = server_command(&program()?)?;
        command.current_dir(&folder).arg(&settings).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        let mut process = command.spawn().context("setpriv (util-linux) cannot be started")?;
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Ok(Self { port, _process: process });
            }
            ensure!(process.try_wait()?.is_none(), "pgbouncer ended: {}", tail(&log));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("pgbouncer does not answer: {}", tail(&log))
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }
}

fn program() -> anyhow::Result<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found = folders.iter().map(|folder| Path::new(folder).join("pgbouncer"));
    found.into_iter().find(|path| path.is_file()).context("apt-get install pgbouncer")
}
