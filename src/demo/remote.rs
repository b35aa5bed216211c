//! The repository the demo's orders are about: a real bare repository with a small project in it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use crate::process;

macro_rules! project {
    ($($name:literal),*) => {
        [$(($name, include_str!(concat!("project/", $name)))),*]
    };
}

/// The project: a text tool in plain sh, so that its tests can run anywhere.
static FILES: [(&str, &str); 6] = project![
    "README.md",
    "CONTRIBUTING.md",
    "bin/wordkit",
    "commands/lines",
    "tests/run.sh",
    "tests/lines_test.sh"
];

/// The branch everything starts from.
pub const BASE: &str = "main";

/// A bare repository on this machine.
#[derive(Debug)]
pub struct DemoRemote {
    folder: PathBuf,
    search_path: String,
}

impl DemoRemote {
    /// Makes `wordkit.git` in `folder` unless it is there already.
    pub async fn create(folder: &Path, search_path: &str) -> anyhow::Result<Self> {
        let remote =
            Self { folder: folder.join("wordkit.git"), search_path: search_path.to_owned() };
        if remote.folder.join("HEAD").is_file() {
            return Ok(remote);
        }
        let seed = folder.join("seed");
        for (name, text) in FILES {
            let path = seed.join(name);
            fs::create_dir_all(path.parent().unwrap_or(&seed))?;
            fs::write(&path, text)?;
            if text.starts_with("#!") {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            }
        }
        let initial = format!("--initial-branch={BASE}");
        remote.git(&seed, &["init", "--quiet", &initial]).await?;
        remote.git(&seed, &["add", "--all"]).await?;
        remote.git(&seed, &["commit", "--quiet", "--message", "feat: start wordkit"]).await?;
        let bare = remote.folder.display().to_string();
        remote.git(&seed, &["clone", "--quiet", "--bare", ".", &bare]).await?;
        fs::remove_dir_all(&seed)?;
        Ok(remote)
    }

    /// The address that orders name.
    pub fn url(&self) -> String {
        format!("file://{}", self.folder.display())
    }

    /// Full names of all refs but the base branch.
    pub async fn refs(&self) -> anyhow::Result<Vec<String>> {
        let names = ["for-each-ref", "--format=%(refname)", "refs/heads", "refs/awo/pulls"];
        let text = self.git(&self.folder, &names).await?;
        let base = format!("refs/heads/{BASE}");
        Ok(text.lines().filter(|name| *name != base).map(str::to_owned).collect())
    }

    /// What `branch` changes, as a patch or (`stat`) as a summary.
    pub async fn diff(&self, branch: &str, options: &[&str]) -> anyhow::Result<String> {
        let range = format!("refs/heads/{BASE}...refs/heads/{branch}");
        let arguments = [&["diff"], options, &[range.as_str(), "--"]].concat();
        self.git(&self.folder, &arguments).await
    }

    async fn git(&self, folder: &Path, arguments: &[&str]) -> anyhow::Result<String> {
        let output = process::command("git")
            .env("PATH", &self.search_path)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .args(["-c", "user.name=Demo", "-c", "user.email=demo@localhost"])
            .args(["-c", "commit.gpgSign=false", "-c", "core.hooksPath=/dev/null"])
            .args(arguments)
            .current_dir(folder)
            .output()
            .await
            .context("cannot start git: run `apt-get install git`")?;
        let verb = arguments.first().copied().unwrap_or_default();
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "git {verb} failed: {}", words.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
