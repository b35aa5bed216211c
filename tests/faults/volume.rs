//! The volume of the sandboxes: a small tmpfs in a mount namespace of its own, which a file can
//! fill. It goes with the last process in it.

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

const SIZE: &str = "512m";
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The namespace with the volume, held open by a process of its own.
pub struct Volume {
    /// Where the volume is for those within.
    pub folder: PathBuf,
    holder: Child,
}

impl Volume {
    /// Mounts it at `folder`. As root in a private mount namespace, else in a user namespace too.
    pub async fn mount(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut unshare = process::command("unshare");
        unshare.env("PATH", PATH).arg("--mount").args(["--propagation", "private"]);
        if !geteuid().is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        // It lives until it reads the end of its input, which is ours.
        let script =
            format!("mount -t tmpfs -o size={SIZE} awo-faults \"$1\" && echo ready && exec cat");
        unshare.args(["--", "sh", "-c", &script, "sh"]).arg(folder);
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

    /// Takes the last byte.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut file = File::create(self.outside("ballast"))?;
        for _ in 0..1000 {
            let free = fstatvfs(file.as_fd())?;
            let free = i64::try_from(free.blocks_available() * free.fragment_size())?;
            if free > 0 {
                let end = i64::try_from(file.metadata()?.len())?;
                // What somebody else took in between is found in the next round.
                let _ = fallocate(file.as_fd(), FallocateFlags::empty(), end, free);
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

/// The volume can be filled and emptied, and is nobody else's.
pub async fn check() {
    let folder = tempfile::tempdir().unwrap();
    let volume = Volume::mount(&folder.path().join("volume")).await.unwrap();
    let write = || fs::write(volume.outside("file"), vec![1; 100_000]);
    write().unwrap();
    volume.fill().unwrap();
    fs::remove_file(volume.outside("file")).unwrap();
    volume.free().unwrap();
    volume.fill().unwrap();
    assert_eq!(write().unwrap_err().kind(), ErrorKind::StorageFull);
    volume.free().unwrap();
    write().unwrap();
    assert!(!volume.folder.join("file").exists(), "mounted in its own namespace only");
    let mut within = volume.command();
    within.env("PATH", PATH).arg("cat").arg(volume.folder.join("file"));
    let read = within.output().await.unwrap();
    assert_eq!(read.stdout.len(), 100_000, "{}", String::from_utf8_lossy(&read.stderr));
}
