//! Takes up what others pushed to the branch of an order: their commits become its head, their files come into the
//! checkout, and what the agent has not committed stays there.
//!
//! What is about to be written is noted first, so that a process that is killed in between is made good by the next.

use std::{fs, io::ErrorKind, path::Path};

use git2::{Config, Oid, Repository};
use serde::{Deserialize, Serialize};

use super::{
    GitError, Remote, Sandbox,
    ancestry::{builds_on, fork_point},
    blocking,
    lock::FileLock,
    merge::{Versions, merge},
    reading::{Reading, reading},
    rewrite::{InTheWay, changes},
    worktree::{Staged, Worktree},
};

/// What is about to be written, in the trusted repository.
const NOTE: &str = "following.json";
/// The last that was fetched of the branch.
pub(super) const THEIRS: &str = "refs/awo/theirs";
const BASE: &str = "refs/awo/base";

/// What this order knows of its branch on the remote.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The last commit of ours that is known to have been there.
    pub arrived: Option<String>,
    /// Commits of ours that are there to be replaced.
    pub replaced: Vec<String>,
    /// Whether an agent comes that can solve conflicts; without one they are an error.
    pub marks: bool,
}

/// Work of others that the branch of an order holds from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// Where the branch was.
    pub from: String,
    /// Where it is now.
    pub head: String,
    /// Commits in between, without those of the base branch.
    pub commits: u64,
    /// Files that changed in the checkout.
    pub files: usize,
    /// Files with both versions between marks.
    pub conflicts: Vec<String>,
}

/// What is about to be written.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// The tree of the checkout as it is.
    before: String,
    /// The tree it is about to be.
    after: String,
    /// The commit from which the order starts from then on.
    base: String,
    followed: Followed,
}

impl Sandbox {
    /// Goes on from the head of the branch on the remote, when that builds on what the order pushed. Answers
    /// what was taken up, if anything was. No agent may be at work.
    #[tracing::instrument(name = "git.follow", skip_all, fields(order = %self.order))]
    pub async fn follow(
        mut self,
        remote: &Remote,
        known: &Known,
    ) -> Result<(Self, Option<Followed>), GitError> {
        let lock = self.git.lock_order(&self.order).await?;
        // A process was killed over it.
        let unfinished = self.finish_following(&lock).await?;
        let Some(there) = self.git.branch_head(remote, &self.branch).await? else {
            return Ok((self, unfinished));
        };
        if known.replaced.contains(&there) || self.has_all(&there, known).await? {
            return Ok((self, unfinished));
        }
        let base = self.fetch_theirs(remote, &lock).await?;
        let Some(note) = self.plan_following(known, base.clone(), &lock).await? else {
            return Err(self.diverged(base.as_deref(), &lock).await);
        };
        let file = self.trusted.join(NOTE);
        blocking(move || write_note(&file, &note)).await?;
        let followed = self.finish_following(&lock).await?;
        Ok((self, followed.or(unfinished)))
    }

    /// Whether our branch holds all that the remote has, and the remote what it is known to have had.
    async fn has_all(&self, there: &str, known: &Known) -> Result<bool, GitError> {
        let (sandbox, there, arrived) = (self.clone(), there.to_owned(), known.arrived.clone());
        blocking(move || {
            let repository = sandbox.open_trusted()?;
            let head = sandbox.branch_head(&repository)?.id();
            let there = oid(&there)?;
            let lost = match arrived {
                Some(arrived) => !builds_on(&repository, there, oid(&arrived)?),
                None => false,
            };
            Ok(there == head || (builds_on(&repository, head, there) && !lost))
        })
        .await
    }

    /// Fetches the branch and the one it starts from; answers the head of the latter when it exists.
    async fn fetch_theirs(
        &self,
        remote: &Remote,
        lock: &FileLock,
    ) -> Result<Option<String>, GitError> {
        let fetch = |names: &[String]| {
            self.git
                .invoke("fetch")
                .args(["--quiet", "--no-tags", "--no-write-fetch-head"])
                .args(["--", remote.url.clone_url()])
                .args(names)
                .within(&self.trusted)
                .with_remote(remote)
                .holding(lock)
                .check()
        };
        let branch = format!("+{}:{THEIRS}", self.branch.full_ref());
        let base = format!("+refs/heads/{}:{BASE}", self.base_branch);
        match fetch(&[branch.clone(), base]).await {
            Ok(_) => {}
            // The branch that the order started from may be gone.
            Err(GitError::Failed { .. }) => {
                fetch(&[branch]).await?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let sandbox = self.clone();
        blocking(move || {
            let repository = sandbox.open_trusted()?;
            Ok(repository.refname_to_id(BASE).ok().map(|id| id.to_string()))
        })
        .await
    }

    /// Decides what the branch and the files become; `None` when what was fetched does not build on ours.
    async fn plan_following(
        &self,
        known: &Known,
        base: Option<String>,
        lock: &FileLock,
    ) -> Result<Option<Note>, GitError> {
        let (sandbox, known) = (self.clone(), known.clone());
        let planned = reading(move |reading| sandbox.bring_together(&known, reading));
        let Some(mut note) = planned.await? else { return Ok(None) };
        if let Some(base) = base {
            note.base = self.new_base(&note.followed.head, &base, lock).await?;
            note.followed.commits =
                self.count(&note.followed.head, &[&note.followed.from, &base], lock).await?;
        } else {
            note.followed.commits =
                self.count(&note.followed.head, &[&note.followed.from], lock).await?;
        }
        Ok(Some(note))
    }

    fn bring_together(&self, known: &Known, look: &Reading) -> Result<Option<Note>, GitError> {
        let worktree = Worktree::open(self, look)?;
        let repository = &worktree.repository;
        let library = || GitError::library("bring the work of others and of the agent together");
        let (head, base) = (self.branch_head(repository)?, oid(&self.base_commit)?);
        let theirs = repository.refname_to_id(THEIRS).map_err(library())?;
        let Some(fork) = fork_point(repository, head.id(), base, theirs) else { return Ok(None) };
        let kept = match &known.arrived {
            Some(arrived) => builds_on(repository, theirs, oid(arrived)?),
            // Nothing of ours is known to be there: then the branch must hold a commit of ours.
            None => fork != base,
        };
        if !kept {
            return Ok(None);
        }
        let Staged { tree: ours, refused, .. } = worktree.stage(&head)?;
        if let Some(refused) = refused {
            return Err(refused);
        }
        let tree = |commit| repository.find_commit(commit).map(|commit| commit.tree_id());
        let versions = Versions {
            before: tree(fork).map_err(library())?,
            ours,
            theirs: tree(theirs).map_err(library())?,
            label: self.branch.as_str(),
        };
        let merged = merge(repository, &versions).map_err(library())?;
        if !merged.conflicts.is_empty() && !known.marks {
            return Err(GitError::Conflict {
                branch: self.branch.to_string(),
                order: self.order.to_string(),
                head: theirs.to_string(),
                files: merged.conflicts.join(", "),
            });
        }
        let files = changes(repository, ours, merged.tree).map_err(library())?.len();
        Ok(Some(Note {
            before: ours.to_string(),
            after: merged.tree.to_string(),
            base: self.base_commit.clone(),
            followed: Followed {
                from: head.id().to_string(),
                head: theirs.to_string(),
                commits: 0,
                files,
                conflicts: merged.conflicts,
            },
        }))
    }

    /// The commit of the base branch that `head` starts from: a later one when others have merged it in.
    async fn new_base(&self, head: &str, base: &str, lock: &FileLock) -> Result<String, GitError> {
        let command = self.git.invoke("merge-base").args([head, base]).within(&self.trusted);
        let outcome = command.holding(lock).run().await?;
        let found = outcome.stdout.trim().to_owned();
        // Without a common history, or when all of it is merged already, what was holds.
        if !outcome.status.success() || found == head {
            return Ok(self.base_commit.clone());
        }
        let (sandbox, new) = (self.clone(), found.clone());
        let later = blocking(move || {
            let repository = sandbox.open_trusted()?;
            Ok(builds_on(&repository, oid(&new)?, oid(&sandbox.base_commit)?))
        });
        Ok(if later.await? { found } else { self.base_commit.clone() })
    }

    /// How many commits lead to `head` and not to one of `without`.
    async fn count(&self, head: &str, without: &[&str], lock: &FileLock) -> Result<u64, GitError> {
        let command = self.git.invoke("rev-list").args(["--count", head, "--not"]);
        let outcome = command.args(without).within(&self.trusted).holding(lock).check().await?;
        Ok(outcome.stdout.trim().parse().unwrap_or_default())
    }

    async fn diverged(&self, base: Option<&str>, lock: &FileLock) -> GitError {
        let tell = async {
            let sandbox = self.clone();
            let (ours, theirs) = blocking(move || {
                let repository = sandbox.open_trusted()?;
                let library = GitError::library("read the branch of others");
                let theirs = repository.refname_to_id(THEIRS).map_err(library)?;
                Ok((sandbox.branch_head(&repository)?.id().to_string(), theirs.to_string()))
            })
            .await?;
            let besides = |other| [Some(other), base].into_iter().flatten().collect::<Vec<&str>>();
            Ok(GitError::Diverged {
                branch: self.branch.to_string(),
                only_ours: self.count(&ours, &besides(&theirs), lock).await?,
                only_theirs: self.count(&theirs, &besides(&ours), lock).await?,
                ours,
                theirs,
            })
        };
        tell.await.unwrap_or_else(|error| error)
    }

    /// Does what the note says, if there is one; fine to repeat.
    async fn finish_following(&mut self, lock: &FileLock) -> Result<Option<Followed>, GitError> {
        let file = self.trusted.join(NOTE);
        let read = file.clone();
        let Some(note) = blocking(move || read_note(&read)).await? else { return Ok(None) };
        let trees = (oid(&note.before)?, oid(&note.after)?);
        self.rewrite_files(trees, InTheWay::Kept, lock).await?;
        self.base_commit.clone_from(&note.base);
        self.conflicts.clone_from(&note.followed.conflicts);
        let sandbox = self.clone();
        blocking(move || {
            sandbox.amend_record()?;
            let repository = sandbox.open_trusted()?;
            let head = oid(&note.followed.head)?;
            let moved = sandbox.point_branch(&repository, head, "work of others");
            moved.map_err(GitError::library("put the branch on the work of others"))?;
            remove_if_there(&file)?;
            Ok(Some(note.followed))
        })
        .await
    }

    pub(super) fn open_trusted(&self) -> Result<Repository, GitError> {
        let open = || {
            let repository = Repository::open_bare(&self.trusted)?;
            // Only this file: no settings of the user or the system decide what is committed.
            repository.set_config(&Config::open(&self.trusted.join("config"))?)?;
            Ok(repository)
        };
        open().map_err(GitError::library("open the trusted repository"))
    }
}

fn write_note(file: &Path, note: &Note) -> Result<(), GitError> {
    let text = serde_json::to_vec(note)
        .map_err(|error| GitError::Unusable(format!("cannot write {NOTE}: {error}")))?;
    let staged = file.with_extension("part");
    fs::write(&staged, text)
        .and_then(|()| fs::rename(&staged, file))
        .map_err(GitError::file("write", file))
}

fn read_note(file: &Path) -> Result<Option<Note>, GitError> {
    match fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
            GitError::Unusable(format!("{} cannot be read: {error}", file.display()))
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(GitError::file("read", file)(error)),
    }
}

pub(super) fn remove_if_there(file: &Path) -> Result<(), GitError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(GitError::file("remove", file)(error))
        }
        _ => Ok(()),
    }
}

fn oid(sha: &str) -> Result<Oid, GitError> {
    Oid::from_str(sha).map_err(GitError::library("read the name of a commit"))
}
