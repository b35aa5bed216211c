//! The place one order is worked on: a checkout for the agent, and beside it a trusted repository
//! the agent cannot write, from which everything is committed and pushed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Git, GitError, Mirror, blocking,
    lock::FileLock,
    mirror::suspect,
    ports_file,
    removal::{delete, discard, require_ours},
    tree_size,
    volume::MARKER,
};
use crate::domain::{BranchName, RepositoryUrl, WorkOrderId};

/// The record of a sandbox in its trusted repository; written last, so it means "complete".
const RECORD: &str = "sandbox.json";
/// Where the checkout is made before it gets its name.
const STAGING: &str = ".staging";

/// The sandbox of an order.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// The order.
    pub order: WorkOrderId,
    /// Everything of the order; the agent may write in the three folders below it.
    pub root: PathBuf,
    /// The agent's working directory.
    pub checkout: PathBuf,
    /// The agent's home.
    pub home: PathBuf,
    /// The agent's temporary files.
    pub tmp: PathBuf,
    /// The branch of the order.
    pub branch: BranchName,
    /// The branch the order started from.
    pub base_branch: String,
    /// The commit the order started from.
    pub base_commit: String,
    pub(super) trusted: PathBuf,
    pub(super) git: Git,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    order: WorkOrderId,
    url: String,
    branch: String,
    base_branch: String,
    base_commit: String,
}

impl Git {
    /// Makes the sandbox of an order, on its own branch from `base` (by default the repository's
    /// default branch). One that is complete is reopened, one that is not is made again.
    #[tracing::instrument(name = "git.open_sandbox", skip_all, fields(order = %order))]
    pub async fn open_sandbox(
        &self,
        mirror: &Mirror,
        order: &WorkOrderId,
        branch: &BranchName,
        base: Option<&BranchName>,
    ) -> Result<Sandbox, GitError> {
        let sandbox = self.make_sandbox(mirror, order, branch, base).await?;
        // A restore that was given up; without its note the sandbox is complete.
        let note = self.volume().restoring(order);
        blocking(move || delete(&note)).await?;
        Ok(sandbox)
    }

    /// The same, with the note of a restore left where it is.
    pub(super) async fn make_sandbox(
        &self,
        mirror: &Mirror,
        order: &WorkOrderId,
        branch: &BranchName,
        base: Option<&BranchName>,
    ) -> Result<Sandbox, GitError> {
        self.prepare().await?;
        let lock = self.lock_order(order).await?;
        if let Some(sandbox) = self.look_up(order, &mirror.url).await? {
            if sandbox.branch == *branch {
                return Ok(sandbox);
            }
            let (expected, found) = (branch.to_string(), sandbox.branch.to_string());
            return Err(GitError::OtherBranch { expected, found });
        }
        let base = base.map_or_else(|| mirror.default_branch.clone(), ToString::to_string);
        let new = NewSandbox {
            sandbox: self.sandbox(order, &mirror.url, branch.clone(), base, String::new()),
            mirror: mirror.path.clone(),
            url: mirror.url.clone(),
        };
        let new = blocking(move || new.make_room()).await?;
        self.check_out(&new, &lock).await?;
        blocking(move || {
            let sandbox = new.complete();
            drop(lock);
            sandbox
        })
        .await
    }

    /// Finds the sandbox of an order without the network; `None` when it is not complete.
    #[tracing::instrument(name = "git.find_sandbox", skip_all, fields(order = %order))]
    pub async fn find_sandbox(
        &self,
        order: &WorkOrderId,
        url: &RepositoryUrl,
    ) -> Result<Option<Sandbox>, GitError> {
        self.prepare().await?;
        // Somebody may be taking it away, and put it back because the order runs again.
        let _lock = self.lock_order(order).await?;
        self.look_up(order, url).await
    }

    async fn look_up(
        &self,
        order: &WorkOrderId,
        url: &RepositoryUrl,
    ) -> Result<Option<Sandbox>, GitError> {
        let (git, order, url) = (self.clone(), order.clone(), url.clone());
        blocking(move || {
            let found = git
                .recorded(&order)
                .filter(|(_, recorded)| recorded.clone_url() == url.clone_url());
            let whole = |sandbox: &Sandbox| {
                is_folder(&sandbox.checkout) && !git.volume().restoring(&order).exists()
            };
            Ok(found.map(|(sandbox, _)| sandbox).filter(whole))
        })
        .await
    }

    /// What the record of an order says, whether its checkout is there or not; and the repository.
    pub(super) fn recorded(&self, order: &WorkOrderId) -> Option<(Sandbox, RepositoryUrl)> {
        let text = fs::read(self.volume().trusted(order).join(RECORD)).ok()?;
        let record = serde_json::from_slice::<Record>(&text).ok()?;
        let branch = record.branch.parse().ok()?;
        let url = RepositoryUrl::recorded(&record.url)?;
        if record.order != *order {
            return None;
        }
        Some((self.sandbox(order, &url, branch, record.base_branch, record.base_commit), url))
    }

    /// Whether nobody holds the sandbox of an order: no agent's shim, no git and no worker.
    pub async fn sandbox_is_free(&self, order: &WorkOrderId) -> Result<bool, GitError> {
        let volume = self.volume();
        let locks = [volume.order_lock(order), volume.agent_lock(order)];
        blocking(move || Ok(FileLock::is_free(&locks[0])? && FileLock::is_free(&locks[1])?)).await
    }

    pub(super) async fn lock_order(&self, order: &WorkOrderId) -> Result<FileLock, GitError> {
        FileLock::acquire(self.volume().order_lock(order), self.settings().lock_timeout).await
    }

    /// The plain checkout, in the time of a local clone: objects are borrowed from the mirror.
    async fn check_out(&self, new: &NewSandbox, lock: &FileLock) -> Result<(), GitError> {
        let settings = self.settings();
        let cloned = self
            .invoke("clone")
            .args(["--shared", "--single-branch", "--no-tags", "--quiet", "--template="])
            .arg(format!("--branch={}", new.sandbox.base_branch))
            .args(["-c", &format!("user.name={}", settings.author_name)])
            .args(["-c", &format!("user.email={}", settings.author_email)])
            .arg("--")
            .arg(&new.mirror)
            .arg(new.staging())
            .holding(lock)
            .check()
            .await;
        match cloned {
            Err(GitError::DamagedCache { detail, .. }) => {
                let path = new.mirror.clone();
                suspect(&path);
                Err(GitError::DamagedCache { path, detail })
            }
            other => other.map(drop),
        }
    }

    fn sandbox(
        &self,
        order: &WorkOrderId,
        url: &RepositoryUrl,
        branch: BranchName,
        base_branch: String,
        base_commit: String,
    ) -> Sandbox {
        let root = self.volume().sandbox(order);
        Sandbox {
            checkout: root.join(url.name()),
            // A repository may be called "home"; none starts with a dot.
            home: root.join(".home"),
            tmp: root.join(".tmp"),
            trusted: self.volume().trusted(order),
            order: order.clone(),
            root,
            branch,
            base_branch,
            base_commit,
            git: self.clone(),
        }
    }
}

impl Sandbox {
    /// The folders of objects that the checkout borrows from, as our own repository names them: what
    /// stands in the agent's is the agent's. Blocks for the time of reading one small file.
    pub fn borrowed_objects(&self) -> Result<Vec<PathBuf>, GitError> {
        let file = self.trusted.join("objects/info/alternates");
        match fs::read_to_string(&file) {
            Ok(text) => {
                Ok(text.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(GitError::file("read", &file)(error)),
        }
    }

    /// What the record says of this sandbox.
    fn record_for(&self, url: &str) -> Result<Vec<u8>, GitError> {
        let record = Record {
            order: self.order.clone(),
            url: url.to_owned(),
            branch: self.branch.to_string(),
            base_branch: self.base_branch.clone(),
            base_commit: self.base_commit.clone(),
        };
        serde_json::to_vec(&record)
            .map_err(|error| GitError::Unusable(format!("cannot write {RECORD}: {error}")))
    }

    /// Replaces the record after the base has changed.
    pub(super) fn rewrite_record(&self) -> Result<(), GitError> {
        let file = self.trusted.join(RECORD);
        let Some((_, url)) = self.git.recorded(&self.order) else {
            return Err(GitError::Unusable(format!("{} is gone", file.display())));
        };
        let staged = file.with_extension("part");
        fs::write(&staged, self.record_for(url.clone_url())?)
            .and_then(|()| fs::rename(&staged, &file))
            .map_err(GitError::file("write", &file))
    }
}

/// Whether `path` is a real folder, not a link to one.
pub(super) fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// A sandbox in the making. Nothing of the agent has run in it, so its files are still our own.
struct NewSandbox {
    sandbox: Sandbox,
    mirror: PathBuf,
    url: RepositoryUrl,
}

impl NewSandbox {
    fn staging(&self) -> PathBuf {
        self.sandbox.root.join(STAGING)
    }

    fn trusted_staging(&self) -> PathBuf {
        self.sandbox.trusted.with_extension("staging")
    }

    /// Removes what an interrupted attempt left and makes the folders.
    fn make_room(self) -> Result<Self, GitError> {
        self.check_names()?;
        let Sandbox { root, trusted, home, tmp, git, order, .. } = &self.sandbox;
        require_ours(root, trusted)?;
        let trash = git.volume().trash();
        for (path, kind) in [(root, "sandbox"), (trusted, "trusted")] {
            if let Some(place) = discard(path, &trash, &format!("{order}.{kind}"))? {
                delete(&place)?;
            }
        }
        delete(&self.trusted_staging())?;
        fs::create_dir(root).map_err(GitError::file("make the folder", root))?;
        let marker = root.join(MARKER);
        fs::write(&marker, format!("{order}\n")).map_err(GitError::file("write", &marker))?;
        for folder in [home, tmp] {
            fs::create_dir(folder).map_err(GitError::file("make the folder", folder))?;
        }
        Ok(self)
    }

    /// The base must exist, and the new branch must not stand above or below another one.
    fn check_names(&self) -> Result<(), GitError> {
        let mirror = git2::Repository::open_bare(&self.mirror)
            .map_err(GitError::library("open the repository cache"))?;
        let exists = |name: &str| mirror.find_reference(&format!("refs/heads/{name}")).is_ok();
        let Sandbox { branch, base_branch, .. } = &self.sandbox;
        if !exists(base_branch) {
            let (url, branch) = (self.url.to_string(), base_branch.clone());
            return Err(GitError::NoBranch { url, branch });
        }
        let base = mirror
            .refname_to_id(&format!("refs/heads/{base_branch}"))
            .map_err(GitError::library("read the branch to start from"))?;
        tree_size::require_sane(&mirror, base)?;
        let name = branch.as_str();
        let above = name.match_indices('/').map(|(at, _)| &name[..at]).find(|name| exists(name));
        let below = mirror
            .references_glob(&format!("refs/heads/{name}/*"))
            .ok()
            .and_then(|mut found| found.next().and_then(Result::ok))
            .and_then(|found| found.shorthand().map(str::to_owned).ok());
        match above.map(str::to_owned).or(below) {
            Some(existing) => Err(GitError::BranchConflict { branch: name.to_owned(), existing }),
            None => Ok(()),
        }
    }

    /// Puts the checkout on its branch, makes the trusted repository, and publishes both.
    fn complete(mut self) -> Result<Sandbox, GitError> {
        let staging = self.staging();
        self.sandbox.base_commit = head(&staging)?;
        self.adopt(&staging.join(".git"))?;
        let trusted = self.make_trusted(&staging.join(".git/index"))?;
        let sandbox = self.sandbox;
        let publish = |from: &Path, to: &Path| {
            fs::rename(from, to).map_err(GitError::file("publish the sandbox", to))
        };
        publish(&staging, &sandbox.checkout)?;
        publish(&trusted, &sandbox.trusted)?;
        Ok(sandbox)
    }

    /// Plain writes into the fresh clone: quicker than three more git processes.
    fn adopt(&self, git_dir: &Path) -> Result<(), GitError> {
        let write = |name: &str, text: String| {
            let path = git_dir.join(name);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(GitError::file("make the folder", folder))?;
            }
            fs::write(&path, text).map_err(GitError::file("write", &path))
        };
        let branch = self.sandbox.branch.full_ref();
        write(&branch, format!("{}\n", self.sandbox.base_commit))?;
        write("HEAD", format!("ref: {branch}\n"))?;
        // For the agent's own git; ours leaves the file out whatever stands here.
        write("info/exclude", format!("/{}\n", ports_file::NAME))?;
        let mut config = git2::Config::open(&git_dir.join("config"))
            .map_err(GitError::library("open the configuration of the checkout"))?;
        config
            .set_str("remote.origin.url", self.url.clone_url())
            .map_err(GitError::library("name the origin of the checkout"))
    }

    fn make_trusted(&self, index: &Path) -> Result<PathBuf, GitError> {
        let path = self.trusted_staging();
        let mut options = git2::RepositoryInitOptions::new();
        options.bare(true).external_template(false).no_reinit(true);
        let library = GitError::library("make the trusted repository");
        match git2::Repository::init_opts(&path, &options) {
            Ok(_) => {}
            Err(error) => return Err(library(error)),
        }
        let record = self.sandbox.record_for(self.url.clone_url())?;
        let alternates = format!("{}\n", self.mirror.join("objects").display());
        // The runner compares files as git on Linux does, whatever this file system can do.
        let config = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n\
                      \tsymlinks = true\n\tignorecase = false\n\tautocrlf = false\n[gc]\n\tauto = 0\n";
        let put = |name: &str, content: &[u8]| {
            let file = path.join(name);
            fs::write(&file, content).map_err(GitError::file("write", &file))
        };
        put("objects/info/alternates", alternates.as_bytes())?;
        put("config", config.as_bytes())?;
        put(RECORD, &record)?;
        // The fresh index knows the size and times of every file, so that the first commit reads
        // only what the agent changed. From here on the agent cannot reach it.
        let copy = path.join("index");
        fs::copy(index, &copy).map_err(GitError::file("copy the index to", &copy))?;
        Ok(path)
    }
}

fn head(checkout: &Path) -> Result<String, GitError> {
    let commit = git2::Repository::open(checkout)
        .and_then(|repository| repository.refname_to_id("HEAD"))
        .map_err(GitError::library("read the commit of the new checkout"))?;
    Ok(commit.to_string())
}
