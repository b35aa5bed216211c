//! How long a sandbox takes to be ready, how much disk it costs, and how fast it is gone again.

use std::{
    fs,
    future::Future,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, ensure};
use tokio::io::{AsyncWriteExt, BufWriter};

use super::{BenchReport, Machine, Measurement, Progress, Scratch, median, real};
use crate::{
    clock::Clock,
    domain::{Redactor, RemoteRules, RepositoryUrl, WorkOrderId},
    git::{Git, GitSettings, Remote, Sandbox, Transfer},
    process,
};

/// Size of a file, in bytes: 3,000 of them make a checkout of 34 MB.
const FILE: usize = 11_500;
const FILES_PER_FOLDER: usize = 50;
/// Files each commit of the history rewrites.
const REWRITTEN: usize = 30;

/// What to measure with.
#[derive(Debug, Clone)]
pub struct SandboxBench {
    /// An existing folder on the file system to measure; everything is made in a subfolder of it
    /// and removed again. Needs 2 GiB.
    pub folder: PathBuf,
    /// This program, which git is started through.
    pub program: PathBuf,
    /// The git program.
    pub git: PathBuf,
    /// Files in the synthetic repository.
    pub files: usize,
    /// Commits in its history, each of which rewrites 30 files with bytes that do not compress.
    pub commits: usize,
    /// Rounds per value; the median counts.
    pub rounds: usize,
    /// Sandboxes made and removed before the churned values are measured.
    pub churn: usize,
}

impl SandboxBench {
    /// 3,000 files, a pack of about 140 MB, 7 rounds, 100 sandboxes of churn.
    pub fn new(folder: PathBuf, program: PathBuf) -> Self {
        let git = PathBuf::from("git");
        Self { folder, program, git, files: 3000, commits: 300, rounds: 7, churn: 100 }
    }
}

/// Runs every measurement; takes two to five minutes with the default sizes.
pub async fn run(
    plan: &SandboxBench,
    clock: &Clock,
    progress: Progress<'_>,
) -> anyhow::Result<BenchReport> {
    let folder = Scratch::make(&plan.folder)?;
    let bench = Bench { plan, clock, progress, folder: folder.path() };
    bench.build_remote().await.context("cannot build the repository to measure with")?;
    let mut results = bench.cold().await?;
    let git = bench.git("volume");
    results.push(bench.warm(&git, "sandbox_warm", 0).await?);
    results.push(bench.delete(&git).await?);
    for done in 0..plan.churn {
        (progress)("create and delete", done, plan.churn);
        let id = order("churn", done)?;
        bench.open(&git, &id).await?;
        git.remove_sandbox(&id).await?;
    }
    results.push(bench.warm(&git, "sandbox_warm_churned", 1000).await?);
    Ok(BenchReport { machine: Machine::here(&plan.folder), database: None, results })
}

struct Bench<'a> {
    plan: &'a SandboxBench,
    clock: &'a Clock,
    progress: Progress<'a>,
    folder: &'a Path,
}

impl Bench<'_> {
    /// The first order on a repository, against a plain clone of it; and the disk both take.
    async fn cold(&self) -> anyhow::Result<Vec<Measurement>> {
        let rounds = self.plan.rounds.min(3);
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        let (mut disk, mut floor_disk) = (0, 0);
        for round in 0..rounds {
            (self.progress)("first sandbox", round, rounds);
            let volume = format!("cold-{round}");
            let git = self.git(&volume);
            let (time, sandbox) = self.timed(self.open(&git, &order("cold", round)?)).await?;
            ours.push(time);
            // In the same root, so that both get the same treatment by the file system.
            let plain = git.volume().root().join("plain");
            let url = self.remote()?.url;
            floor.push(self.timed(self.clone(&[url.clone_url()], &plain)).await?.0);
            let trusted = git.volume().trusted(&sandbox.order);
            disk = measure(&sandbox.root)?.kib + measure(&trusted)?.kib;
            floor_disk = measure(&plain)?.kib;
            fs::remove_dir_all(&plain)?;
            fs::remove_dir_all(self.folder.join(volume))?;
        }
        Ok(vec![
            Measurement::new("sandbox_cold", "ms", median(&ours), median(&floor)),
            Measurement::new("sandbox_disk", "KiB", real(disk), real(floor_disk)),
        ])
    }

    /// The next order on a cached repository, against `git clone --shared` of the same commit.
    async fn warm(
        &self,
        git: &Git,
        name: &'static str,
        first: usize,
    ) -> anyhow::Result<Measurement> {
        let mirror = git.refresh_mirror(&self.remote()?).await?;
        let mirror = mirror.path.display().to_string();
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        // One unmeasured round warms the page cache for both.
        for round in 0..=self.plan.rounds {
            (self.progress)(name, round, self.plan.rounds + 1);
            let id = order("warm", first + round)?;
            let plain = git.volume().root().join(format!("floor-{first}-{round}"));
            let arguments = ["--shared", &mirror];
            // Turn and turn about, so that neither profits from the other.
            let (our_time, floor_time) = if round % 2 == 0 {
                let our_time = self.timed(self.open(git, &id)).await?.0;
                (our_time, self.timed(self.clone(&arguments, &plain)).await?.0)
            } else {
                let floor_time = self.timed(self.clone(&arguments, &plain)).await?.0;
                (self.timed(self.open(git, &id)).await?.0, floor_time)
            };
            if round > 0 {
                ours.push(our_time);
                floor.push(floor_time);
            }
        }
        for round in 0..=self.plan.rounds {
            fs::remove_dir_all(git.volume().root().join(format!("floor-{first}-{round}")))?;
            git.remove_sandbox(&order("warm", first + round)?).await?;
        }
        Ok(Measurement::new(name, "ms", median(&ours), median(&floor)))
    }

    /// Removing a sandbox, against `rm -rf` of one.
    async fn delete(&self, git: &Git) -> anyhow::Result<Measurement> {
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for round in 0..self.plan.rounds {
            (self.progress)("delete", round, self.plan.rounds);
            let (mine, bare) = (order("delete", round)?, order("bare", round)?);
            let entries = real(measure(&self.open(git, &mine).await?.root)?.entries);
            let plain = self.open(git, &bare).await?.root;
            let per_second = |milliseconds: f64| entries / (milliseconds / 1000.0).max(1e-6);
            let remove = async {
                git.remove_sandbox(&mine).await?;
                Ok(())
            };
            ours.push(per_second(self.timed(remove).await?.0));
            let arguments = ["-rf", "--", &plain.display().to_string()];
            let remove = self.tool(Path::new("rm"), &arguments);
            floor.push(per_second(self.timed(remove).await?.0));
            git.remove_sandbox(&bare).await?;
        }
        Ok(Measurement::new("sandbox_delete", "files/s", median(&ours), median(&floor)))
    }

    /// What a worker does for `create-branch`.
    async fn open(&self, git: &Git, id: &WorkOrderId) -> anyhow::Result<Sandbox> {
        let mirror = git.refresh_mirror(&self.remote()?).await?;
        ensure!(mirror.transfer != Transfer::Fetched, "a cache that is current was fetched again");
        let branch = format!("feat/bench-{id}").parse()?;
        Ok(Box::pin(git.open_sandbox(&mirror, id, &branch, None)).await?)
    }

    async fn clone(&self, from: &[&str], to: &Path) -> anyhow::Result<()> {
        let to = to.display().to_string();
        let arguments: Vec<&str> =
            ["clone", "--quiet"].into_iter().chain(from.iter().copied()).chain([&*to]).collect();
        self.tool(&self.plan.git, &arguments).await
    }

    async fn tool(&self, program: &Path, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = self.command(program);
        let output = command.args(arguments).output().await.context("cannot start the floor")?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} {arguments:?}: {words}", program.display());
        Ok(())
    }

    fn command(&self, program: &Path) -> tokio::process::Command {
        let mut command = process::command(program);
        command
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.folder)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .current_dir(self.folder);
        command
    }

    async fn timed<T>(
        &self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<(f64, T)> {
        let start = self.clock.now();
        let result = work.await?;
        Ok(((self.clock.now() - start).as_secs_f64() * 1000.0, result))
    }

    fn git(&self, volume: &str) -> Git {
        let mut settings = GitSettings::new(self.folder.join("home"), self.plan.program.clone());
        settings.binary.clone_from(&self.plan.git);
        Git::new(settings, self.folder.join(volume), Redactor::default())
    }

    fn remote(&self) -> anyhow::Result<Remote> {
        let url = format!("file://{}", self.folder.join("remote.git").display());
        let rules = RemoteRules { allowed_hosts: Vec::new(), allow_local: true };
        Ok(Remote { url: RepositoryUrl::parse(&url, &rules)?, credential: None })
    }

    /// A repository whose history holds four times what its checkout does.
    async fn build_remote(&self) -> anyhow::Result<()> {
        let remote = self.folder.join("remote.git");
        let name = remote.display().to_string();
        let init = ["init", "--quiet", "--bare", "--initial-branch=main", &name];
        self.tool(&self.plan.git, &init).await?;
        let mut command = self.command(&self.plan.git);
        command.args(["-c", "core.compression=1", "fast-import", "--quiet", "--depth=0"]);
        let mut import = command.current_dir(&remote).stdin(Stdio::piped()).spawn()?;
        let mut input = BufWriter::new(import.stdin.take().context("fast-import has no input")?);
        let mut noise = Noise(1);
        for commit in 0..=self.plan.commits {
            (self.progress)("repository", commit, self.plan.commits + 1);
            let head = format!(
                "commit refs/heads/main\ncommitter Bench <bench@example.invalid> {} +0000\n\
                 data 6\nChange\n",
                1_700_000_000 + commit
            );
            input.write_all(head.as_bytes()).await?;
            let count = if commit == 0 { self.plan.files } else { REWRITTEN };
            for file in 0..count {
                let file = (commit * REWRITTEN + file) % self.plan.files;
                let folder = file / FILES_PER_FOLDER;
                let head =
                    format!("M 100644 inline part{folder:03}/file{file:05}.bin\ndata {FILE}\n");
                input.write_all(head.as_bytes()).await?;
                input.write_all(&noise.bytes(FILE)).await?;
                input.write_all(b"\n").await?;
            }
        }
        input.shutdown().await?;
        drop(input);
        let output = import.wait_with_output().await?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "git fast-import: {words}");
        Ok(())
    }
}

fn order(kind: &str, number: usize) -> anyhow::Result<WorkOrderId> {
    Ok(format!("{kind}-{number}").parse()?)
}

/// Bytes that do not compress, the same in every run (xorshift64*).
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            bytes.extend_from_slice(&self.0.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

struct Measured {
    entries: u64,
    kib: u64,
}

/// Counts the entries of a tree and the space they take, as du does.
fn measure(root: &Path) -> anyhow::Result<Measured> {
    let (mut entries, mut blocks) = (0, 0);
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        entries += 1;
        blocks += metadata.blocks();
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        }
    }
    Ok(Measured { entries, kib: blocks / 2 })
}
