//! A folder of its own with a real remote repository and a git layer to work on it.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use archon_awo::{
    domain::{BranchName, Redactor, RemoteRules, RepositoryUrl, WorkOrderId},
    git::{Git, GitSettings, Remote},
    process,
};

/// A remote at `remote/app.git` with one commit on `main`, and a volume at `volume`.
pub struct Place {
    pub folder: tempfile::TempDir,
    pub git: Git,
}

impl Place {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    /// With changed settings.
    pub fn with(change: impl FnOnce(&mut GitSettings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let askpass = PathBuf::from(env!("CARGO_BIN_EXE_archon-awo"));
        let mut settings = GitSettings::new(folder.path().join("git-home"), askpass);
        change(&mut settings);
        let git = Git::new(settings, folder.path().join("volume"), Redactor::default());
        let place = Self { folder, git };
        let seed = place.path("seed");
        fs::create_dir_all(seed.join("src")).unwrap();
        fs::write(seed.join("README.md"), "# app\n").unwrap();
        fs::write(seed.join("src/main.txt"), "one\ntwo\n").unwrap();
        fs::write(seed.join(".gitignore"), "target/\n*.log\n").unwrap();
        git_in(&seed, &["init", "--quiet", "--initial-branch=main"]);
        place.seed_commit("Start");
        let remote = place.path("remote/app.git");
        fs::create_dir_all(remote.parent().unwrap()).unwrap();
        let seed = seed.to_str().unwrap();
        git_in(
            place.folder.path(),
            &["clone", "--quiet", "--bare", seed, remote.to_str().unwrap()],
        );
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Commits everything in `seed`.
    pub fn seed_commit(&self, message: &str) {
        git_in(&self.path("seed"), &["add", "-A"]);
        git_in(&self.path("seed"), &["commit", "--quiet", "--allow-empty", "-m", message]);
    }

    /// Sends the branches of `seed` to the remote.
    pub fn publish(&self) {
        let remote = self.path("remote/app.git");
        git_in(
            &self.path("seed"),
            &["push", "--quiet", "--all", "--force", remote.to_str().unwrap()],
        );
    }

    /// The remote as a folder.
    pub fn remote(&self) -> Remote {
        let text = format!("file://{}", self.path("remote/app.git").display());
        let rules = RemoteRules { allowed_hosts: Vec::new(), allow_local: true };
        Remote { url: RepositoryUrl::parse(&text, &rules).unwrap(), credential: None }
    }

    /// What git says in the remote.
    pub fn ask_remote(&self, arguments: &[&str]) -> String {
        git_in(&self.path("remote/app.git"), arguments)
    }
}

pub fn order(text: &str) -> WorkOrderId {
    text.parse().unwrap()
}

pub fn branch(text: &str) -> BranchName {
    text.parse().unwrap()
}

/// Runs git in a folder the test made and returns what it printed.
pub fn git_in(folder: &Path, arguments: &[&str]) -> String {
    let mut command = process::blocking_command("git");
    command
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.invalid"])
        .args(arguments)
        .current_dir(folder);
    let output = command.output().unwrap_or_else(|error| panic!("{error}: apt-get install git"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?} in {}: {words}", folder.display());
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}
