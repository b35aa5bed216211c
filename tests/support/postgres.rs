//! A private server beside the one the tests run on: PostgreSQL 18, or a standby.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, ChildStdin, Stdio},
};

use archon_awo::process::blocking_command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A running server; it ends with this value, or with the test however that ends.
pub struct Postgres {
    url: String,
    server: Child,
    lifeline: Option<ChildStdin>,
}

impl Postgres {
    /// Starts PostgreSQL 18, fetching its binaries when no test has done so before.
    ///
    /// Panics with what is to be installed when it cannot.
    pub fn start_18() -> Self {
        let found = script(".ci/postgres-18").stderr(Stdio::piped()).output().unwrap();
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        let bin = String::from_utf8(found.stdout).unwrap();
        Self::start(Path::new(bin.trim()))
    }

    /// Starts a standby whose primary is away: it answers what only reads.
    pub fn start_standby() -> Self {
        let found = blocking_command("sh")
            .args(["-c", "ls -d /usr/lib/postgresql/*/bin | sort -Vr | head -n 1"])
            .env("PATH", "/usr/bin:/bin")
            .output()
            .unwrap();
        let real = String::from_utf8(found.stdout).unwrap();
        let real = real.trim();
        let bin = tempfile::tempdir().unwrap();
        let marked = format!(
            "#!/bin/sh\n{real}/initdb \"$@\" || exit\nfor word; do case $word in \
             --pgdata=*) touch \"${{word#--pgdata=}}/standby.signal\";; esac; done\n"
        );
        let plain = format!("#!/bin/sh\nexec {real}/postgres \"$@\"\n");
        for (name, text) in [("initdb", marked), ("postgres", plain)] {
            let path = bin.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(bin.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self::start(bin.path())
    }

    fn start(bin: &Path) -> Self {
        // The server lives until `cat` reads the end of its input.
        let mut server = script(".ci/with-postgres")
            .args(["bash", "-c", "echo \"$DATABASE_URL\"; exec cat"])
            .env("AWO_PG_BIN", bin)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lifeline = server.stdin.take();
        let mut url = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("postgres://"), "with-postgres printed no address: {url:?}");
        Self { url: url.trim().to_owned(), server, lifeline }
    }

    /// Address of the database `name`, which need not exist.
    pub fn url(&self, name: &str) -> String {
        let (server, _) = self.url.rsplit_once('/').unwrap();
        format!("{server}/{name}")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let _ = self.server.wait();
    }
}

fn script(name: &str) -> std::process::Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "the scripts need PATH, HOME, proxies and caches"
    )]
    let caller = std::env::vars();
    let mut command = blocking_command(format!("{ROOT}/{name}"));
    command.envs(caller).stderr(Stdio::inherit()).stdout(Stdio::piped());
    command
}
