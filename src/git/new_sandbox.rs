//! A sandbox in the making. Nothing of the agent has run in it, so its files are still our own.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use git2::{Config, Repository};

use super::{
    Git, GitError, Mirror, Plan, Sandbox, blocking, checkout_settings,
    lfs_content::FILTER,
    lock::FileLock,
    mirror::suspect,
    objects::{Purpose, borrow, new_repository, put},
    parts::Fresh,
    ports_file,
    removal::{delete, discard, require_ours},
    rule_file,
    sandbox::RECORD,
    sparse::Cone,
    tree_size::{self, Weight},
    volume::MARKER,
};
use crate::domain::{SandboxType, clash};

/// Where the checkout is made before it gets its name.
const STAGING: &str = ".staging";

pub(super) struct NewSandbox {
    sandbox: Sandbox,
    mirror: Mirror,
    plan: Plan,
    /// What its files are together.
    weight: Weight,
}

impl Git {
    /// Makes a sandbox from the repository's cache, in the time it takes to write its files.
    pub(super) async fn build(&self, new: NewSandbox, lock: FileLock) -> Result<Sandbox, GitError> {
        let new = blocking(move || new.make_room()).await?;
        let quiet = self.quiet(&new.mirror, new.plan.sandbox_type).await?;
        let new = blocking(move || {
            let new = new.lay_out();
            drop(quiet);
            new
        })
        .await?;
        self.check_out(&new, &lock).await?;
        let borrowed = self.fill(&new.fresh(&lock)).await?;
        blocking(move || {
            let sandbox = new.complete(&borrowed);
            drop(lock);
            sandbox
        })
        .await
    }

    /// Keeps others from fetching into a cache and packing it, where its objects are about to be copied.
    pub(super) async fn quiet(
        &self,
        mirror: &Mirror,
        form: SandboxType,
    ) -> Result<Option<FileLock>, GitError> {
        match form {
            SandboxType::GitWorktree => Ok(None),
            SandboxType::GitBranch => {
                let file = mirror.path.with_file_name("lock");
                FileLock::acquire(file, self.settings().lock_timeout).await.map(Some)
            }
        }
    }

    /// Writes the files of the commit.
    async fn check_out(&self, new: &NewSandbox, lock: &FileLock) -> Result<(), GitError> {
        let staging = new.staging();
        let written = self
            .invoke("read-tree")
            .args(["--reset", "-u", "HEAD"])
            .within(&new.git_dir())
            .over(&staging)
            .holding(lock)
            .ending_with_us()
            .check();
        match self.within_quota(&staging, new.weight, written).await {
            Err(GitError::DamagedCache { detail, .. }) => {
                let path = new.mirror.path.clone();
                suspect(&path).await;
                Err(GitError::DamagedCache { path, detail })
            }
            other => other.map(drop),
        }
    }
}

impl NewSandbox {
    pub(super) fn new(sandbox: Sandbox, mirror: &Mirror, plan: &Plan) -> Self {
        Self { sandbox, mirror: mirror.clone(), plan: plan.clone(), weight: Weight::default() }
    }

    fn fresh<'a>(&'a self, lock: &'a FileLock) -> Fresh<'a> {
        Fresh {
            mirror: &self.mirror,
            form: self.plan.sandbox_type,
            parts: &self.plan.parts,
            folder: self.staging(),
            lock,
        }
    }

    fn staging(&self) -> PathBuf {
        self.sandbox.root.join(STAGING)
    }

    fn git_dir(&self) -> PathBuf {
        self.staging().join(".git")
    }

    fn trusted_staging(&self) -> PathBuf {
        self.sandbox.trusted.with_extension("staging")
    }

    /// Removes what an interrupted attempt left and makes the folders.
    fn make_room(mut self) -> Result<Self, GitError> {
        self.sandbox.base_commit = self.check_names()?;
        let Sandbox { root, trusted, home, tmp, git, order, .. } = &self.sandbox;
        require_ours(root, trusted)?;
        let trash = git.volume().trash();
        for (path, kind) in [(root, "sandbox"), (trusted, "trusted")] {
            if let Some(place) = discard(path, &trash, &format!("{order}.{kind}"))? {
                delete(&place)?;
            }
        }
        delete(&self.trusted_staging())?;
        // No other user has anything to look for in it; that of a run is let through when it begins.
        let made = fs::DirBuilder::new().mode(0o700).create(root);
        made.map_err(GitError::file("make the folder", root))?;
        let marker = root.join(MARKER);
        fs::write(&marker, format!("{order}\n")).map_err(GitError::file("write", &marker))?;
        for folder in [home, tmp] {
            fs::create_dir(folder).map_err(GitError::file("make the folder", folder))?;
        }
        Ok(self)
    }

    /// The base must exist, and the new branch must not stand above or below another one. Answers the
    /// commit to start from.
    fn check_names(&mut self) -> Result<String, GitError> {
        let mirror = Repository::open_bare(&self.mirror.path)
            .map_err(GitError::library("open the repository cache"))?;
        let exists = |name: &str| mirror.find_reference(&format!("refs/heads/{name}")).is_ok();
        let Sandbox { branch, base_branch, .. } = &self.sandbox;
        if !exists(base_branch) {
            let (url, branch) = (self.mirror.remote.url.to_string(), base_branch.clone());
            return Err(GitError::NoBranch { url, branch });
        }
        let base = mirror
            .refname_to_id(&format!("refs/heads/{base_branch}"))
            .map_err(GitError::library("read the branch to start from"))?;
        self.weight = tree_size::weigh(&mirror, base)?;
        if Cone::of(&self.plan.parts.sparse).is_everything() {
            let what = format!("the commit {base}");
            self.sandbox.git.require_room(&what, self.weight.bytes)?;
        }
        // Its own name may be there: pushed by this order, or about to be refused at the push.
        let others = self.mirror.branches.iter().map(String::as_str);
        match clash(branch, others.filter(|name| *name != branch.as_str())) {
            Some(clash) => Err(GitError::BranchConflict {
                branch: branch.to_string(),
                existing: clash.existing().to_owned(),
            }),
            None => Ok(base.to_string()),
        }
    }

    /// Makes the repository of the checkout.
    fn lay_out(self) -> Result<Self, GitError> {
        let (mirror, form) = (&self.mirror.path, self.plan.sandbox_type);
        new_repository(&self.staging(), Purpose::Checkout, mirror, form)?;
        let git_dir = self.git_dir();
        let Sandbox { branch, base_branch, base_commit, .. } = &self.sandbox;
        let commit = format!("{base_commit}\n");
        put(&git_dir, &format!("refs/heads/{base_branch}"), commit.as_bytes())?;
        put(&git_dir, &format!("refs/remotes/origin/{base_branch}"), commit.as_bytes())?;
        put(&git_dir, &branch.full_ref(), commit.as_bytes())?;
        put(&git_dir, "HEAD", format!("ref: {}\n", branch.full_ref()).as_bytes())?;
        // For the agent's own git; ours leaves the file out whatever stands here.
        let mut exclude = format!("/{}\n", ports_file::NAME).into_bytes();
        let excludes = self.sandbox.git.settings().excludes.as_deref();
        exclude
            .extend(excludes.map(rule_file::read_own).transpose()?.flatten().unwrap_or_default());
        put(&git_dir, "info/exclude", &exclude)?;
        let cone = Cone::of(&self.plan.parts.sparse);
        if !cone.is_everything() {
            put(&git_dir, "info/sparse-checkout", cone.patterns().as_bytes())?;
        }
        self.configure(&git_dir)
            .map_err(GitError::library("write the configuration of the checkout"))?;
        Ok(self)
    }

    /// The agent's own git: who it is, and where the code is from.
    fn configure(&self, git_dir: &Path) -> Result<(), git2::Error> {
        let settings = self.sandbox.git.settings();
        let base = &self.sandbox.base_branch;
        let mut config = Config::open(&git_dir.join("config"))?;
        config.set_str("user.name", &settings.author_name)?;
        config.set_str("user.email", &settings.author_email)?;
        config.set_str("remote.origin.url", self.mirror.remote.url.clone_url())?;
        let fetch = format!("+refs/heads/{base}:refs/remotes/origin/{base}");
        config.set_str("remote.origin.fetch", &fetch)?;
        if !self.plan.parts.sparse.is_empty() {
            config.set_bool("core.sparseCheckout", true)?;
            config.set_bool("core.sparseCheckoutCone", true)?;
        }
        if self.plan.parts.lfs {
            for (name, value) in FILTER {
                config.set_str(name, value)?;
            }
        }
        Ok(())
    }

    /// Makes the trusted repository and publishes both.
    fn complete(self, borrowed: &[PathBuf]) -> Result<Sandbox, GitError> {
        let staging = self.staging();
        let trusted = self.make_trusted(&self.git_dir().join("index"))?;
        borrow(&trusted, borrowed)?;
        let sandbox = self.sandbox;
        let publish = |from: &Path, to: &Path| {
            fs::rename(from, to).map_err(GitError::file("publish the sandbox", to))
        };
        publish(&staging, &sandbox.checkout)?;
        publish(&trusted, &sandbox.trusted)?;
        Ok(sandbox)
    }

    fn make_trusted(&self, index: &Path) -> Result<PathBuf, GitError> {
        let path = self.trusted_staging();
        new_repository(&path, Purpose::Bare, &self.mirror.path, self.plan.sandbox_type)?;
        // The runner compares files as git on Linux does, whatever this file system can do.
        let config = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n\
                      \tsymlinks = true\n\tignorecase = false\n\tautocrlf = false\n[gc]\n\tauto = 0\n";
        put(&path, "config", config.as_bytes())?;
        let file = GitError::file("keep the settings of the checkout in", &path);
        checkout_settings::keep(&self.git_dir(), &path).map_err(file)?;
        put(&path, RECORD, &self.sandbox.record_for(self.mirror.remote.url.clone_url())?)?;
        // The fresh index knows the size and times of every file, so that the first commit reads
        // only what the agent changed. From here on the agent cannot reach it.
        let copy = path.join("index");
        fs::copy(index, &copy).map_err(GitError::file("copy the index to", &copy))?;
        Ok(path)
    }
}
