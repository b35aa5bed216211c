//! The place one order is worked on: a checkout for the agent, and beside it a trusted repository
//! the agent cannot write, from which everything is committed and pushed.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use super::{
    Git, GitError, Mirror, Parts, Plan, blocking, lock::FileLock, new_sandbox::NewSandbox,
    objects::BORROWED, removal::delete, volume::MARKER,
};
use crate::{
    disk::{Beneath, beneath::is_shortage, look_at_volume},
    domain::{BranchName, RepositoryUrl, Role, WorkOrderId},
};

/// The record of a sandbox in its trusted repository; written last, so it means "complete".
pub(super) const RECORD: &str = "sandbox.json";

/// The sandbox of an order.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// The order.
    pub order: WorkOrderId,
    /// Everything of the order; the agent may write in the three folders below it.
    pub root: PathBuf,
    /// The agent's working directory.
    pub checkout: PathBuf,
    /// The author's home.
    pub home: PathBuf,
    /// The author's temporary files.
    pub tmp: PathBuf,
    /// The branch of the order.
    pub branch: BranchName,
    /// The branch the order started from.
    pub base_branch: String,
    /// The commit the order started from.
    pub base_commit: String,
    /// Files that hold two versions, of the agent and of others, until somebody has chosen.
    pub conflicts: Vec<String>,
    /// How often the order had begun anew when it was made.
    pub restarts: i32,
    /// What its checkout holds.
    pub(super) parts: Parts,
    /// Which of the orders with this id it belongs to; not known of those that older versions made.
    pub(super) generation: Option<i64>,
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
    #[serde(default)]
    parts: Parts,
    #[serde(default)]
    generation: Option<i64>,
    #[serde(default)]
    conflicts: Vec<String>,
    #[serde(default)]
    restarts: i32,
}

impl Git {
    /// Makes the sandbox of an order after a plan, on its own branch (`None` as a plan: from the
    /// repository's default branch). One that is complete is reopened, one that is not is made again.
    #[tracing::instrument(name = "git.open_sandbox", skip_all, fields(order = %order))]
    pub async fn open_sandbox(
        &self,
        mirror: &Mirror,
        order: &WorkOrderId,
        branch: &BranchName,
        plan: impl Into<Plan>,
    ) -> Result<Sandbox, GitError> {
        let sandbox = self.make_sandbox(mirror, order, branch, &plan.into()).await?;
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
        plan: &Plan,
    ) -> Result<Sandbox, GitError> {
        self.prepare().await?;
        let lock = self.lock_order(order).await?;
        if let Some(sandbox) = self.look_up(order, &mirror.remote.url).await? {
            if sandbox.branch == *branch {
                return Ok(sandbox);
            }
            let (expected, found) = (branch.to_string(), sandbox.branch.to_string());
            return Err(GitError::OtherBranch { expected, found });
        }
        let base = plan.base.as_ref();
        let base = base.map_or_else(|| mirror.default_branch.clone(), ToString::to_string);
        let mut sandbox = self.sandbox(order, &mirror.remote.url, branch.clone(), base);
        sandbox.parts = plan.parts.clone();
        sandbox.generation = plan.generation;
        sandbox.restarts = plan.restarts;
        self.build(NewSandbox::new(sandbox, mirror, plan), lock).await
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
            git.require_open(&order)?;
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

    /// An error when what tells of a sandbox is there and cannot be looked at, even after it was opened again:
    /// a sandbox that is closed is not gone.
    fn require_open(&self, order: &WorkOrderId) -> Result<(), GitError> {
        let (record, root) =
            (self.volume().trusted(order).join(RECORD), self.volume().sandbox(order));
        let look = |path: &Path| match fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(GitError::file("read", path)(error))
            }
            _ => Ok(()),
        };
        look(&record).and_then(|()| look(&root.join(MARKER))).or_else(|_| {
            look_at_volume(self.volume().root());
            look(&record).and_then(|()| look(&root.join(MARKER)))
        })
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
        let sandbox = self.sandbox(order, &url, branch, record.base_branch);
        let Record { base_commit, parts, conflicts, restarts, generation, .. } = record;
        let made = Sandbox { base_commit, conflicts, restarts, parts, generation, ..sandbox };
        Some((made, url))
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

    pub(super) fn sandbox(
        &self,
        order: &WorkOrderId,
        url: &RepositoryUrl,
        branch: BranchName,
        base_branch: String,
    ) -> Sandbox {
        let root = self.volume().sandbox(order);
        Sandbox {
            checkout: root.join(url.name()),
            home: root.join(".home"),
            tmp: root.join(".tmp"),
            trusted: self.volume().trusted(order),
            order: order.clone(),
            root,
            branch,
            base_branch,
            base_commit: String::new(),
            conflicts: Vec::new(),
            restarts: 0,
            parts: Parts::default(),
            generation: None,
            git: self.clone(),
        }
    }
}

impl Sandbox {
    /// The files of the checkout, to be read whoever still writes them.
    pub(super) fn files(&self) -> Result<Beneath, GitError> {
        let name = self.checkout.strip_prefix(&self.root).unwrap_or(&self.checkout);
        let opened = Beneath::open(&self.root).and_then(|root| root.folder(name));
        opened.map_err(|error| match error {
            error if is_shortage(&error) => GitError::file("open", &self.checkout)(error),
            _ => GitError::NoCheckout { path: self.checkout.clone() },
        })
    }

    /// Home and temporary files of an agent in a role. Each role may open its own alone.
    pub fn rooms(&self, role: Role) -> (PathBuf, PathBuf) {
        // A repository may be called "home"; none starts with a dot.
        let room = |name: &str| self.root.join(format!("{name}{}", role.suffix()));
        (room(".home"), room(".tmp"))
    }

    /// The folders of objects that the checkout borrows from, as our own repository names them: what
    /// stands in the agent's is the agent's.
    pub async fn borrowed_objects(&self) -> Result<Vec<PathBuf>, GitError> {
        let file = self.trusted.join(BORROWED);
        blocking(move || match fs::read_to_string(&file) {
            Ok(text) => {
                Ok(text.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(GitError::file("read", &file)(error)),
        })
        .await
    }

    /// Has the contents of Git LFS kept from now on, as the policy of the repository has come to want it.
    pub async fn keep_lfs(mut self) -> Result<Self, GitError> {
        if self.parts.lfs {
            return Ok(self);
        }
        self.parts.lfs = true;
        let lock = self.git.lock_order(&self.order).await?;
        blocking(move || {
            self.amend_record()?;
            drop(lock);
            Ok(self)
        })
        .await
    }

    /// What the record says of this sandbox.
    pub(super) fn record_for(&self, url: &str) -> Result<Vec<u8>, GitError> {
        let record = Record {
            order: self.order.clone(),
            url: url.to_owned(),
            branch: self.branch.to_string(),
            base_branch: self.base_branch.clone(),
            base_commit: self.base_commit.clone(),
            parts: self.parts.clone(),
            generation: self.generation,
            conflicts: self.conflicts.clone(),
            restarts: self.restarts,
        };
        serde_json::to_vec(&record)
            .map_err(|error| GitError::Unusable(format!("cannot write {RECORD}: {error}")))
    }

    /// Replaces the record of a sandbox in which an agent was at work. Its time stays: it tells what the agent
    /// has touched.
    pub(super) fn amend_record(&self) -> Result<(), GitError> {
        let record = self.trusted.join(RECORD);
        let keep =
            |made: SystemTime| File::options().append(true).open(&record)?.set_modified(made);
        let made = fs::metadata(&record).and_then(|record| record.modified());
        let made = made.map_err(GitError::file("look at", &record))?;
        self.rewrite_record()?;
        keep(made).map_err(GitError::file("write", &record))
    }

    /// Replaces the record after the base has changed.
    pub(super) fn rewrite_record(&self) -> Result<(), GitError> {
        let file = self.trusted.join(RECORD);
        let Some((_, url)) = self.git.recorded(&self.order) else {
            return Err(GitError::Unusable(format!("{} is gone", file.display())));
        };
        let (staged, record) = (file.with_extension("part"), self.record_for(url.clone_url())?);
        fs::write(&staged, record)
            .and_then(|()| fs::rename(&staged, &file))
            .map_err(GitError::file("write", &file))
    }
}

/// Whether `path` is a real folder, not a link to one.
pub(super) fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}
