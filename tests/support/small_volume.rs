//! A small tmpfs in a mount namespace of its own, which a file can fill. It goes with the last
//! process in it.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::Context;
use archon_awo::process;
use nix::{
    fcntl::{FallocateFlags, fallocate},
    sys::statvfs::fstatvfs,
    unistd::geteuid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

pub const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The namespace with the volume, held open by a process of its own.
pub struct Volume {
    /// Where the volume is for those within.
    pub folder: PathBuf,
    holder: Child,
}

impl Volume {
    /// Mounts it at `folder`, with `options` of a tmpfs such as `size=64m`. As root in a private mount
    /// namespace, else in a user namespace too.
    pub async fn mount(folder: &Path, options: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut unshare = process::command("unshare");
        unshare.env("PATH", PATH).arg("--mount").args(["--propagation", "private"]);
        if !geteuid().is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        // It lives until it reads the end of its input, which is ours.
        let script = "mount -t tmpfs -o \"$2\" awo-test \"$1\" && echo ready && exec cat";
        unshare.args(["--", "sh", "-c", script, "sh"]).arg(folder).arg(options);
        let mut holder = unshare.stdin(Stdio::piped()).spawn().context("unshare (util-linux)")?;
        let output = holder.stdout.take().context("its output is piped")?;
        let mut word = String::new();
        BufReader::new(output).read_line(&mut word).await?;
        if word.trim() != "ready" {
            let output = holder.wait_with_output().await?;
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            anyhow::bail!(
                "a tmpfs that can be filled cannot be mounted: {words}; run as root with \
                 CAP_SYS_ADMIN, or allow user namespaces \
                 (sysctl kernel.unprivileged_userns_clone=1)"
            );
        }
        Ok(Self { folder: folder.to_owned(), holder })
    }

    /// A program that sees the volume.
    pub fn command(&self) -> Command {
        let mut command = process::command("nsenter");
        let pid = self.holder.id().unwrap_or_default().to_string();
        command.args(["--target", &pid, "--mount"]);
        if !geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--");
        command
    }

    /// A path within, as it is reached from out here.
    pub fn outside(&self, name: &str) -> PathBuf {
        let pid = self.holder.id().unwrap_or_default();
        let folder = self.folder.strip_prefix("/").unwrap_or(&self.folder);
        Path::new("/proc").join(pid.to_string()).join("root").join(folder).join(name)
    }

    /// Takes all but the last `left` bytes, to the next block; more of them when called again.
    pub fn fill(&self, left: u64) -> anyhow::Result<()> {
        let options = File::options().create(true).truncate(false).write(true).clone();
        let mut file = options.open(self.outside("ballast"))?;
        for _ in 0..1000 {
            let free = fstatvfs(file.as_fd())?;
            let free = free.blocks_available() * free.fragment_size();
            let free = i64::try_from(free.saturating_sub(left))?;
            if free == 0 && left > 0 {
                return Ok(());
            }
            if free > 0 {
                let end = i64::try_from(file.metadata()?.len())?;
                // What somebody else took in between is found in the next round.
                let _ = fallocate(file.as_fd(), FallocateFlags::empty(), end, free);
            }
            if left > 0 {
                continue;
            }
            let mut probe = File::options().append(true).open(self.outside("ballast"))?;
            match probe.write_all(&[0; 4096]) {
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
                Ok(()) => file = probe,
            }
        }
        anyhow::bail!("the volume cannot be filled")
    }

    /// Gives the space back.
    pub fn free(&self) -> anyhow::Result<()> {
        fs::remove_file(self.outside("ballast")).context("the ballast")
    }
}
