//! A pgbouncer as Debian installs it, in front of the server the tests run on.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use archon_awo::process::blocking_command;
use nix::unistd::{Uid, User};
use sqlx::{ConnectOptions, PgPool};
use tempfile::TempDir;
use url::Url;

/// A running pooler; it ends with this value.
pub struct Pgbouncer {
    url: Url,
    process: Child,
    _folder: TempDir,
}

impl Pgbouncer {
    /// With its defaults but for the mode, in front of the database of `pool`.
    pub fn start(pool: &PgPool, mode: &str) -> Self {
        let mut url = pool.connect_options().to_url_lossy();
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let database = url.path().trim_start_matches('/');
        let settings = folder.path().join("pgbouncer.ini");
        let users = folder.path().join("users");
        let text = format!(
            "[databases]\n{database} = host=127.0.0.1 port={} user={} password={}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\n",
            url.port().unwrap(),
            url.username(),
            url.password().unwrap(),
            users.display(),
        );
        // A worker does not start where a pooler lets agents in without a password.
        let user = format!("\"{}\" \"{}\"\n", url.username(), url.password().unwrap());
        fs::write(&users, user).unwrap();
        fs::write(&settings, text).unwrap();
        let mut command = blocking_command("setpriv");
        command.env("PATH", "/usr/sbin:/usr/bin:/bin").args(["--pdeathsig", "KILL"]);
        // It refuses to run as root.
        if Uid::effective().is_root() {
            let nobody = User::from_name("nobody").unwrap().unwrap();
            let (user, group) = (nobody.uid.as_raw(), nobody.gid.as_raw());
            for path in [folder.path(), &settings, &users] {
                chown(path, Some(user), Some(group)).unwrap();
            }
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
            command.arg(format!("--reuid={user}")).arg(format!("--regid={group}"));
            command.arg("--clear-groups");
        }
        let log = fs::File::create(folder.path().join("log")).unwrap();
        command.arg("--").arg(program()).arg(&settings).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut process = command.spawn().unwrap();
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                url.set_port(Some(port)).unwrap();
                return Self { url, process, _folder: folder };
            }
            assert!(process.try_wait().unwrap().is_none(), "pgbouncer ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("pgbouncer does not answer")
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }
}

impl Drop for Pgbouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> &'static Path {
    let path = Path::new("/usr/sbin/pgbouncer");
    assert!(path.is_file(), "apt-get install pgbouncer");
    path
}
