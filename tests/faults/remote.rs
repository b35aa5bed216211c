//! The remotes of the orders: bare repositories, each of which can fail after the push was taken.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use archon_awo::process::blocking_command;

/// What git reads last, when the refs have moved and the pusher has not been told all: a pipe in its place
/// holds it there. Hooks of a remote that is a folder are not run.
const READ_LAST: &str = "info/refs";

/// One bare repository.
pub struct Remote {
    folder: PathBuf,
}

/// What the remotes hold for one order.
#[derive(Debug, Default, Clone)]
pub struct Delivered {
    pub branches: Vec<String>,
    pub pulls: Vec<String>,
}

impl Remote {
    pub fn create(folder: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder)?;
        let remote = Self { folder };
        remote.git(&["init", "--quiet", "--bare", "--initial-branch=main", "."])?;
        let tree = remote.git(&["mktree"])?;
        let commit = remote.git(&["commit-tree", "-m", "First", tree.trim()])?;
        remote.git(&["update-ref", "refs/heads/main", commit.trim()])?;
        Ok(remote)
    }

    pub fn url(&self) -> String {
        format!("file://{}", self.folder.display())
    }

    /// The next push fails after it was taken.
    pub fn fail_next_push(&self) -> anyhow::Result<()> {
        let pipe = self.folder.join(READ_LAST);
        if pipe.exists() {
            return Ok(());
        }
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU)?;
        self.git(&["config", "receive.updateServerInfo", "true"])?;
        let remote = Self { folder: self.folder.clone() };
        thread::spawn(move || remote.kill_who_reads(&pipe));
        Ok(())
    }

    /// Waits for a push that has come so far, and ends its other end.
    fn kill_who_reads(&self, pipe: &Path) {
        let held = loop {
            let options = nix::fcntl::OFlag::O_NONBLOCK.bits();
            match fs::File::options().write(true).custom_flags(options).open(pipe) {
                Ok(held) => break held,
                Err(_) if pipe.exists() => thread::sleep(Duration::from_millis(2)),
                // The test is over.
                Err(_) => return,
            }
        };
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let number = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
            let other = |number: &i32| u32::try_from(*number) != Ok(std::process::id());
            let Some(number) = number.filter(other) else { continue };
            let open = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
            if open
                .map(|file| file.path())
                .any(|file| fs::read_link(file).is_ok_and(|to| to == pipe))
            {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(number),
                    nix::sys::signal::Signal::SIGKILL,
                );
                let log = self.folder.join("failed-pushes");
                let log = fs::File::options().create(true).append(true).open(log);
                log.and_then(|mut log| log.write_all(b"failed\n")).unwrap();
            }
        }
        self.git(&["config", "receive.updateServerInfo", "false"]).unwrap();
        fs::remove_file(pipe).unwrap();
        drop(held);
    }

    /// How many did.
    pub fn failed_pushes(&self) -> usize {
        let lines = fs::read_to_string(self.folder.join("failed-pushes")).unwrap_or_default();
        lines.lines().count()
    }

    /// Adds what is here to what is known of each order in `orders`.
    pub fn deliveries(&self, orders: &mut BTreeMap<String, Delivered>) -> anyhow::Result<()> {
        let refs = self.git(&["for-each-ref", "--format=%(refname)", "refs/heads"])?;
        for branch in refs.lines().filter(|name| *name != "refs/heads/main") {
            let order = orders.iter_mut().find(|(id, _)| branch.contains(id.as_str()));
            let (_, order) = order.with_context(|| format!("{branch} belongs to no order"))?;
            order.branches.push(branch.to_owned());
        }
        for entry in fs::read_dir(self.folder.join("awo/pulls")).into_iter().flatten() {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path)?;
                let order = orders.iter_mut().find(|(id, _)| text.contains(id.as_str()));
                let named = || format!("{} belongs to no order", path.display());
                order.with_context(named)?.1.pulls.push(path.display().to_string());
            }
        }
        Ok(())
    }

    /// Whether a branch holds what was ordered, as one commit on top of main.
    pub fn holds(&self, branch: &str, order: &str) -> anyhow::Result<bool> {
        let commits = self.git(&["rev-list", "--count", &format!("main..{branch}")])?;
        let file = self.git(&["show", &format!("{branch}:{order}.txt")])?;
        Ok(commits.trim() == "1" && file.starts_with(&format!("written for {order}\n")))
    }

    fn git(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = blocking_command("git");
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("GIT_CONFIG_NOSYSTEM", "1");
        command.env("HOME", &self.folder).current_dir(&self.folder);
        command.args(["-c", "user.name=test", "-c", "user.email=test@localhost"]).args(arguments);
        let output = command.output().context("git")?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "git {arguments:?}: {words}");
        Ok(String::from_utf8(output.stdout)?)
    }
}
