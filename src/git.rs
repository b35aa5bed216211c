//! Everything that touches git: repository caches, sandboxes, the runner's own commits and pushes.
//!
//! Two rules hold in here. The `git` program runs only inside repositories the agent cannot write
//! (the mirror and the trusted repository of an order); what the agent wrote is read through
//! libgit2, which runs no hooks, no filters and no file system monitors. And a token reaches git
//! only through a pipe, never through an argument, a URL, the environment or a file.

mod advertised;
mod agent_files;
mod allowance;
mod ancestry;
pub mod askpass;
mod attributes;
mod bundle;
mod cache;
mod checkout_settings;
mod commit;
mod conversion;
mod disguises;
mod encoding;
mod error;
mod follow;
mod gate;
mod glob;
mod guidance;
mod ignore;
mod index_entry;
mod intake;
mod invocation;
pub mod keeper;
mod left_out;
mod lfs;
mod lfs_content;
mod lock;
mod merge;
mod mirror;
mod nested;
mod new_sandbox;
mod objects;
mod other_end;
mod other_worktrees;
mod parts;
mod pattern;
mod placing;
mod plan;
mod ports_file;
mod push;
mod reading;
mod rebuild;
mod refusal;
mod removal;
mod restore;
mod retire;
mod rewrite;
mod rule_file;
mod rules;
mod sandbox;
mod secrets;
mod set_aside;
mod shallow;
mod sparse;
mod submodule_changes;
mod submodules;
mod tidy;
mod tree_size;
mod undo;
mod volume;
mod walk;
mod words;
mod worktree;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::OnceCell;

pub use advertised::Advertised;
pub use bundle::Bundle;
pub use cache::{CacheLimits, CacheReport};
pub use commit::{Changes, CommitInfo};
pub use error::GitError;
pub use follow::{Followed, Known};
pub use left_out::LeftOut;
pub use mirror::{Mirror, Transfer};
pub use plan::{History, Parts, Plan};
pub use push::Pushed;
pub use retire::{Claim, Discarded, FoundSandbox, Removed};
pub use sandbox::Sandbox;
pub use set_aside::SetAside;
pub use tidy::Tidied;
pub use undo::Undone;
pub use volume::{Volume, VolumeReport};

use crate::{
    config::Config,
    domain::{Credential, Credentials, Redactor, RemoteRules, RepositoryUrl},
    local_remotes::{LocalRemotes, NamedBy, RefusedFolder},
};

/// How git is run.
#[derive(Debug, Clone)]
pub struct GitSettings {
    /// The git program; a bare name is looked up in the usual folders.
    pub binary: PathBuf,
    /// This very binary: git asks it for a password (see [`askpass`]), and some of its commands are started
    /// through it (`keeper`, and what shuts git-lfs in).
    pub this_binary: PathBuf,
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Longest time one git command may take.
    pub fetch_timeout: Duration,
    /// Longest wait for another process that works on the same repository cache.
    pub lock_timeout: Duration,
    /// Author and committer of the runner's commits.
    pub author_name: String,
    /// Address of the author.
    pub author_email: String,
    /// An empty folder that git takes for its home.
    pub home: PathBuf,
    /// More environment for git. Never a secret.
    pub environment: Vec<(OsString, OsString)>,
    /// Where submodules may come from.
    pub remotes: RemoteRules,
    /// Which folders may be remotes; never those of the volume.
    pub local_remotes: LocalRemotes,
    /// Where the contents of Git LFS may lie besides those hosts.
    pub lfs_hosts: Vec<String>,
    /// How many letters of rules are compared for one look at the files of an agent: some ten seconds' worth.
    pub rule_work: u64,
    /// The most bytes that the files of a checkout may take (`AWO_SANDBOX_QUOTA`).
    pub quota: Option<u64>,
    /// A file with patterns of what is never part of the work, in the form of `.gitignore`.
    pub excludes: Option<PathBuf>,
    /// What opens their hosts.
    pub credentials: Credentials,
}

impl GitSettings {
    /// Settings that suit a worker; `home` is an empty folder (made when it is missing).
    pub fn new(home: PathBuf, this_binary: PathBuf) -> Self {
        Self {
            binary: PathBuf::from("git"),
            this_binary,
            ca_file: None,
            fetch_timeout: Duration::from_mins(30),
            lock_timeout: Duration::from_mins(10),
            author_name: "archon-awo".to_owned(),
            author_email: "archon-awo@users.noreply.github.com".to_owned(),
            home,
            environment: Vec::new(),
            remotes: RemoteRules { allowed_hosts: Vec::new(), allow_local: false },
            local_remotes: LocalRemotes::default(),
            lfs_hosts: Vec::new(),
            rule_work: 10_000_000_000,
            quota: None,
            excludes: None,
            credentials: Credentials::default(),
        }
    }
}

/// A repository on a server or in a folder, with what it takes to be let in.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Where it is.
    pub url: RepositoryUrl,
    /// What its host asks for.
    pub credential: Option<Credential>,
}

/// Git on one volume. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Git {
    shared: Arc<Shared>,
    redactor: Redactor,
}

#[derive(Debug)]
struct Shared {
    settings: GitSettings,
    volume: Volume,
    prepared: OnceCell<VolumeReport>,
}

impl Git {
    /// Git with its caches and sandboxes under `root` (`AWO_REPOSITORY_DIR`).
    pub fn new(mut settings: GitSettings, root: PathBuf, redactor: Redactor) -> Self {
        settings.local_remotes = settings.local_remotes.keeping(&root);
        let volume = Volume::new(root);
        let shared = Shared { settings, volume, prepared: OnceCell::new() };
        Self { shared: Arc::new(shared), redactor }
    }

    /// The same, for an order with secrets of its own.
    #[must_use]
    pub fn with_redactor(&self, redactor: Redactor) -> Self {
        Self { shared: Arc::clone(&self.shared), redactor }
    }

    /// Git as the settings of this process want it; `this_binary` is where it lies.
    pub fn configured(config: &Config, this_binary: PathBuf, redactor: Redactor) -> Self {
        let root = config.folders.repositories.clone();
        let mut settings = GitSettings::new(root.join(".cache").join("git-home"), this_binary);
        settings.ca_file.clone_from(&config.git.ca_file);
        settings.author_name.clone_from(&config.git.author_name);
        settings.author_email.clone_from(&config.git.author_email);
        settings.remotes.clone_from(&config.remotes);
        settings.local_remotes.clone_from(&config.local_remotes);
        settings.lfs_hosts.clone_from(&config.git.lfs_hosts);
        settings.quota = config.disk.sandbox_quota;
        settings.excludes = Some(config.folders.config.join("git").join("ignore"));
        settings.credentials.clone_from(&config.credentials);
        Self::new(settings, root, redactor)
    }

    /// Where things are.
    pub fn volume(&self) -> &Volume {
        &self.shared.volume
    }

    /// Makes the folders of the volume; the first call does the work, and every other verb makes it. A
    /// volume that was emptied under a running worker gets them again.
    pub async fn prepare(&self) -> Result<VolumeReport, GitError> {
        let report = self.shared.prepared.get_or_try_init(|| async {
            let report = self.shared.volume.prepare(&self.shared.settings.home).await?;
            tracing::info!(
                spread_sandboxes = report.spread_sandboxes,
                root = %self.shared.volume.root().display(),
                "repository volume is ready"
            );
            Ok(report)
        });
        let report = report.await?;
        let Shared { volume, settings, .. } = &*self.shared;
        let (home, mirrors) = (settings.home.clone(), volume.mirrors());
        if blocking(move || Ok(home.is_dir() && mirrors.is_dir())).await? {
            return Ok(report.clone());
        }
        tracing::warn!(root = %volume.root().display(), "the repository volume was emptied");
        volume.prepare(&settings.home).await
    }

    fn settings(&self) -> &GitSettings {
        &self.shared.settings
    }

    /// An error unless a remote is a server, or a folder that may be one.
    async fn require_remote(&self, remote: &Remote, named_by: NamedBy) -> Result<(), GitError> {
        let Some(folder) = remote.url.local_path().map(Path::to_owned) else { return Ok(()) };
        let (rules, url) = (self.settings().local_remotes.clone(), remote.url.to_string());
        blocking(move || {
            rules.check(&folder, named_by).map_err(|error| match error {
                RefusedFolder::Missing(_) => GitError::NotFound { url },
                other => GitError::Unusable(format!("{url} cannot be used: {other}")),
            })
        })
        .await
    }

    /// What is kept out of commits and of what is saved.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }
}

/// Runs blocking work (libgit2, file locks, file trees) away from the runtime's threads.
///
/// The work runs to its end when the caller is dropped, so it must be fine to repeat.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, GitError> + Send + 'static,
) -> Result<T, GitError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| GitError::Interrupted)?
}
