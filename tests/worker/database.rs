//! A private Postgres that a test may stop and start again.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const WITH_POSTGRES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/with-postgres");

/// A running server; it ends with this value, or with the test however that ends.
pub struct Database {
    pub url: String,
    script: Child,
    lifeline: Option<ChildStdin>,
    folder: PathBuf,
    /// Program and arguments of the server, to start it again as it was.
    command: Vec<String>,
    owner: (u32, u32),
    restarted: Option<Child>,
}

impl Database {
    /// Panics with what is to be installed when there is no server on this machine.
    pub fn start() -> Self {
        // The server lives until `cat` reads the end of its input.
        let mut script = Command::new(WITH_POSTGRES)
            .args(["bash", "-c", "echo \"$DATABASE_URL\"; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lifeline = script.stdin.take();
        let mut url = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let url = url.trim().to_owned();
        let port = url.rsplit_once(':').unwrap().1.split('/').next().unwrap().to_owned();
        // The server's own process is the one that was told this port and a folder.
        let (command, folder) = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
            .map(|line| {
                let words = line.split(|b| *b == 0).map(String::from_utf8_lossy);
                words.map(std::borrow::Cow::into_owned).collect::<Vec<_>>()
            })
            .find_map(|mut words| {
                words.retain(|word| !word.is_empty());
                let after = |flag: &str| {
                    let at = words.iter().position(|word| word == flag)?;
                    words.get(at + 1).cloned()
                };
                let ours = after("-p")? == port && words[0].ends_with("/postgres");
                let folder = PathBuf::from(after("-D")?);
                ours.then_some((words, folder))
            })
            .unwrap();
        let metadata = fs::metadata(&folder).unwrap();
        let owner = (metadata.uid(), metadata.gid());
        Self { url, script, lifeline, folder, command, owner, restarted: None }
    }

    /// Stops the server at once, as a crash would.
    pub fn stop(&mut self) {
        let pid = fs::read_to_string(self.folder.join("postmaster.pid")).unwrap();
        let pid = Pid::from_raw(pid.lines().next().unwrap().parse().unwrap());
        kill(pid, Signal::SIGQUIT).unwrap();
        if let Some(mut server) = self.restarted.take() {
            server.wait().unwrap();
        }
        for _ in 0..1000 {
            if TcpStream::connect(self.address()).is_err() {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        panic!("the server did not stop");
    }

    pub fn start_again(&mut self) {
        let server = Command::new(&self.command[0])
            .args(&self.command[1..])
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("LC_ALL", "C.UTF-8"), ("TZ", "UTC")])
            .current_dir(self.folder.parent().unwrap())
            .uid(self.owner.0)
            .gid(self.owner.1)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.restarted = Some(server);
        for _ in 0..1000 {
            if TcpStream::connect(self.address()).is_ok() {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        panic!("the server did not start again");
    }

    fn address(&self) -> String {
        let address = self.url.rsplit_once('@').unwrap().1;
        address.split('/').next().unwrap().to_owned()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(mut server) = self.restarted.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        drop(self.lifeline.take());
        let _ = self.script.wait();
    }
}
