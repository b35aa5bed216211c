//! The same files in a sandbox and in a plain clone, to compare what we would commit with what git adds.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use archon_awo::{
    git::{Changes, Sandbox},
    process,
};

use crate::git_place::{Place, branch, git_in, order};

/// Paths with their contents.
pub type Files = BTreeMap<String, Vec<u8>>;

pub struct Peer {
    _place: Place,
    pub sandbox: Sandbox,
    trusted: PathBuf,
    clone: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Peer {
    /// A sandbox and a clone of a repository with these files.
    pub fn new(tracked: &Files) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let place = Place::with(|settings| {
            settings.excludes = Some(settings.home.with_file_name("excludes"));
        });
        let seed = place.path("seed");
        fs::remove_file(seed.join(".gitignore")).unwrap();
        write(&seed, tracked);
        git_in(&seed, &["add", "--all", "--force"]);
        git_in(&seed, &["commit", "--quiet", "-m", "Files"]);
        place.publish();
        let remote = place.path("remote/app.git");
        git_in(place.folder.path(), &["clone", "--quiet", remote.to_str().unwrap(), "clone"]);
        let sandbox = runtime.block_on(open(&place));
        let (clone, trusted) = (place.path("clone"), place.git.volume().trusted(&order("wo-1")));
        let excludes = place.path("excludes");
        git_in(&clone, &["config", "core.excludesFile", excludes.to_str().unwrap()]);
        Self { _place: place, sandbox, trusted, clone, runtime }
    }

    /// What every git reads besides the files of a checkout: `info/exclude`, `info/attributes`, and a file
    /// with patterns for all repositories.
    pub fn say(&self, exclude: &[u8], attributes: &[u8], excludes: &[u8]) {
        for folder in [self.trusted.clone(), self.clone.join(".git")] {
            fs::create_dir_all(folder.join("info")).unwrap();
            fs::write(folder.join("info/exclude"), exclude).unwrap();
            fs::write(folder.join("info/attributes"), attributes).unwrap();
        }
        let file = git_in(&self.clone, &["config", "core.excludesFile"]);
        fs::write(file, excludes).unwrap();
    }

    /// Has both hold exactly these files; answers what we would commit, and what git adds when it does.
    pub fn compare(&self, files: &Files) -> (Changes, String, Result<String, String>) {
        for folder in [&self.sandbox.checkout, &self.clone] {
            clear(folder);
            write(folder, files);
        }
        let changes = self.runtime.block_on(self.sandbox.changes()).unwrap();
        let ours = list(&self.trusted);
        git_in(&self.clone, &["read-tree", "HEAD"]);
        let theirs = add_all(&self.clone).map(|()| list(&self.clone));
        (changes, ours, theirs)
    }
}

/// A sandbox of its own.
pub async fn open(place: &Place) -> Sandbox {
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    place.git.open_sandbox(&mirror, &order("wo-1"), &branch("feat/x"), None).await.unwrap()
}

fn list(repository: &Path) -> String {
    git_in(repository, &["ls-files", "--stage"])
}

fn add_all(folder: &Path) -> Result<(), String> {
    let mut command = process::blocking_command("git");
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", folder);
    let output = command.args(["add", "--all"]).current_dir(folder).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(words) }
}

fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().as_bytes() == b".git" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            fs::remove_dir_all(entry.path()).unwrap();
        } else {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// Writes what has a place: not below a file.
fn write(folder: &Path, files: &Files) {
    for (path, content) in files {
        let file = folder.join(path);
        if fs::create_dir_all(file.parent().unwrap()).is_ok() && !file.is_dir() {
            fs::write(file, content).unwrap();
        }
    }
}
