//! A folder of its own with a git layer, a trap that tells who ran it, and what surrounds them.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::{ffi::OsStrExt, fs::MetadataExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use archon_awo::{
    domain::{Redactor, RemoteRules, RepositoryUrl},
    git::{Git, GitError, GitSettings, Remote},
    process,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The folder.
pub struct Yard {
    pub folder: PathBuf,
}

impl Yard {
    /// Puts up a trap and something outside that must not change.
    pub fn new(folder: &Path) -> Self {
        let yard = Self { folder: folder.to_owned() };
        fs::create_dir_all(yard.outside().join("objects")).unwrap();
        fs::write(yard.outside().join("secret.txt"), "a secret of the host\n").unwrap();
        let text = format!("#!/bin/sh\necho \"$*\" >> '{}'\ncat\n", yard.witness().display());
        fs::write(yard.trap(), text).unwrap();
        fs::set_permissions(yard.trap(), fs::Permissions::from_mode(0o755)).unwrap();
        yard
    }

    /// The one that another process has made.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn outside(&self) -> PathBuf {
        self.path("outside")
    }

    pub fn trap(&self) -> PathBuf {
        self.path("trap")
    }

    fn witness(&self) -> PathBuf {
        self.path("witness")
    }

    /// What the trap saw: a line for each time it was run.
    pub fn sprung(&self) -> Vec<String> {
        let text = fs::read_to_string(self.witness()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The git layer of the product.
    pub fn git(&self) -> Git {
        let askpass = PathBuf::from(env!("CARGO_BIN_EXE_archon-awo"));
        let mut settings = GitSettings::new(self.path("git-home"), askpass);
        // Submodules in folders could be fetched: what is refused here is refused for another reason.
        settings.remotes.allow_local = true;
        settings.local_remotes.roots = vec![self.path("")];
        Git::new(settings, self.path("volume"), Redactor::default())
    }

    /// A repository in a folder of the yard, as a remote.
    pub fn remote(&self, name: &str) -> Remote {
        let rules = RemoteRules { allowed_hosts: Vec::new(), allow_local: true };
        let url = format!("file://{}", self.path(name).display());
        Remote { url: RepositoryUrl::parse(&url, &rules).unwrap(), credential: None }
    }

    /// Runs a shell script in a folder, with plain git.
    pub fn shell(&self, folder: &Path, script: &str) -> Output {
        self.script(folder, script).output().unwrap()
    }

    /// Runs a script until it ends or the trap was run.
    pub fn shell_until_sprung(&self, folder: &Path, script: &str) {
        let mut child = self.script(folder, script).spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        while child.try_wait().unwrap().is_none() {
            if !self.sprung().is_empty() {
                kill(pid, Signal::SIGTERM).unwrap();
                child.wait().unwrap();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn script(&self, folder: &Path, script: &str) -> Command {
        let mut command = process::blocking_command("timeout");
        command
            .args(["20", "sh", "-c", script])
            .current_dir(folder)
            .env("PATH", PATH)
            .env("HOME", &self.folder)
            .env("TRAP", self.trap())
            .env("OUT", self.outside())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_AUTHOR_NAME", "Agent")
            .env("GIT_AUTHOR_EMAIL", "agent@example.invalid")
            .env("GIT_COMMITTER_NAME", "Agent")
            .env("GIT_COMMITTER_EMAIL", "agent@example.invalid")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// A number for each file that the product has no business with: names, modes, contents.
    pub fn surroundings(&self) -> BTreeMap<PathBuf, u64> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.folder).unwrap().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("outside") || name == "trap" {
                note(&entry.path(), &mut found);
            }
        }
        for entry in fs::read_dir(self.path("volume/wo-victim")).into_iter().flatten().flatten() {
            note(&entry.path(), &mut found);
        }
        for entry in
            fs::read_dir(self.path("volume/.cache/mirrors")).into_iter().flatten().flatten()
        {
            for name in ["config", "hooks", "info"] {
                note(&entry.path().join("mirror.git").join(name), &mut found);
            }
        }
        found
    }
}

fn note(path: &Path, found: &mut BTreeMap<PathBuf, u64>) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let mut hasher = DefaultHasher::new();
    metadata.mode().hash(&mut hasher);
    if metadata.is_symlink() {
        fs::read_link(path).unwrap().as_os_str().as_bytes().hash(&mut hasher);
    } else if metadata.is_file() {
        fs::read(path).unwrap().hash(&mut hasher);
    } else if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap().flatten() {
            note(&entry.path(), found);
        }
    }
    found.insert(path.to_owned(), hasher.finish());
}

/// What came of the operations on one case: their names, each with the failure it had.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Results(pub Vec<(String, Option<(String, String)>)>);

impl Results {
    /// Notes what came of an operation and hands on what it brought.
    pub fn note<T>(&mut self, operation: &str, result: Result<T, GitError>) -> Option<T> {
        let failure = result.as_ref().err();
        let failure = failure.map(|error| (error.class().as_str().to_owned(), error.sentence()));
        self.0.push((operation.to_owned(), failure));
        result.ok()
    }

    pub fn failures(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.iter().filter_map(|(_, failure)| failure.as_ref())
    }
}
