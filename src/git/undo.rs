//! Puts back what an agent changed that was only to look: the files are remembered before it begins.
//!
//! What is remembered lies in the trusted repository, so that a process that is killed in between is made good
//! by the next. What git ignores stays as the agent left it: results of builds and tests.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use git2::{Commit, Index, Oid, Repository};
use tracing::warn;

use super::{
    GitError, Sandbox, blocking,
    index_entry::{LINK, PLAIN, files_of, unseen},
    lock::FileLock,
    reading::{Reading, reading},
    rewrite::{Change, InTheWay, changes},
    rule_file,
    worktree::Worktree,
};

/// The tree of the files as they were, while somebody looks at them.
pub(super) const REMEMBERED: &str = "refs/awo/remembered";
/// The rules about files that counted then, ignored ones too.
const RULES: &str = "refs/awo/remembered-rules";
/// How often rules are looked for behind rules.
const DEEPEST: usize = 16;
/// Files that an event of the log names: it has 4 KiB.
const LISTED: usize = 20;
/// The most that is read of a file that was written, in bytes.
const LONGEST: usize = 1 << 20;

/// What was put back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Undone {
    changed: Vec<UndoneFile>,
    /// Files that could not be put back.
    pub left: usize,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct UndoneFile {
    path: PathBuf,
    /// What the agent had made of it; nothing when it had removed it.
    made: Option<Oid>,
    is_added: bool,
}

impl Undone {
    /// Whether the agent only looked.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty()
    }

    /// How many files it had changed.
    pub fn count(&self) -> usize {
        self.changed.len()
    }

    /// The first of them, each with what had become of it, for the log.
    pub fn listed(&self) -> Vec<(String, &'static str)> {
        let word = |file: &UndoneFile| match file {
            UndoneFile { is_added: true, .. } => "added",
            UndoneFile { made: None, .. } => "removed",
            UndoneFile { .. } => "changed",
        };
        let first = self.changed.iter().take(LISTED);
        first.map(|file| (file.path.to_string_lossy().into_owned(), word(file))).collect()
    }

    /// The files that were not there before, and those that were and `changed` if that is asked for.
    pub fn written(&self, changed: bool) -> Vec<PathBuf> {
        let is_written = |file: &&UndoneFile| file.made.is_some() && (file.is_added || changed);
        self.changed.iter().filter(is_written).map(|file| file.path.clone()).collect()
    }
}

impl Sandbox {
    /// Remembers the files of the checkout as they are, until [`Self::put_files_back`].
    #[tracing::instrument(name = "git.remember_files", skip_all, fields(order = %self.order))]
    pub async fn remember_files(&self) -> Result<(), GitError> {
        let (sandbox, lock) = (self.clone(), self.git.lock_order(&self.order).await?);
        reading(move |reading| {
            let worktree = Worktree::open(&sandbox, reading)?;
            let repository = &worktree.repository;
            let head = sandbox.branch_head(repository)?;
            let rules = Self::rules(&worktree, &head)?;
            sandbox.remember(repository, RULES, rules)?;
            let tree = worktree.stage(&head)?.tree;
            sandbox.remember(repository, REMEMBERED, tree)?;
            if let Err(error) = sandbox.lay_settings_aside() {
                // Then somebody looks with them, or has no git at all.
                let order = &sandbox.order;
                warn!(%order, "the author's settings of git stay in its checkout: {error}");
            }
            drop(lock);
            Ok(())
        })
        .await
    }

    /// Whether somebody looks at the files, or was ended while it did.
    pub async fn remembers_files(&self) -> Result<bool, GitError> {
        let sandbox = self.clone();
        blocking(move || Ok(remembered(&sandbox.open_trusted()?).is_some())).await
    }

    /// Puts the files back that differ from what is remembered, and forgets it; fine to repeat. Nothing is
    /// done when nothing is remembered. No agent may be at work.
    #[tracing::instrument(name = "git.put_files_back", skip_all, fields(order = %self.order))]
    pub async fn put_files_back(&self) -> Result<Undone, GitError> {
        let lock = self.git.lock_order(&self.order).await?;
        let sandbox = self.clone();
        let Some(before) = blocking(move || Ok(remembered(&sandbox.open_trusted()?))).await? else {
            return Ok(Undone::default());
        };
        // The rules first: a file must not be taken for the agent's because it is no longer ignored, nor be
        // left away because it is now.
        let sandbox = self.clone();
        let mut undone = reading(move |reading| {
            if let Err(error) = sandbox.put_settings_back() {
                let order = &sandbox.order;
                warn!(%order, "the author's settings of git are not put back: {error}");
            }
            sandbox.put_rules_back(before, reading)
        })
        .await?;
        let now = self.staged().await?;
        undone.changed.extend(self.differences(before, now).await?.changed);
        undone.changed.sort_by(|one, other| one.path.cmp(&other.path));
        if now != before {
            self.rewrite_files((now, before), InTheWay::Removed, &lock).await?;
            undone.left = self.differences(before, self.staged().await?).await?.count();
        }
        self.forget(lock).await?;
        Ok(undone)
    }

    /// What an agent had written into a file that was put back; nothing when that is no text, or a long one.
    pub async fn undone_text(&self, undone: &Undone, path: PathBuf) -> Option<String> {
        let made = undone.changed.iter().find(|file| file.path == path)?.made?;
        let sandbox = self.clone();
        let read = move || {
            let repository = sandbox.open_trusted()?;
            let library = GitError::library("read what the agent had written");
            let blob = repository.find_blob(made).map_err(library)?;
            let content = blob.content();
            Ok((content.len() <= LONGEST).then(|| String::from_utf8(content.to_vec()).ok()))
        };
        blocking(read).await.ok().flatten().flatten()
    }

    async fn staged(&self) -> Result<Oid, GitError> {
        let sandbox = self.clone();
        reading(move |reading| {
            let worktree = Worktree::open(&sandbox, reading)?;
            Ok(worktree.stage(&sandbox.branch_head(&worktree.repository)?)?.tree)
        })
        .await
    }

    async fn differences(&self, before: Oid, now: Oid) -> Result<Undone, GitError> {
        let sandbox = self.clone();
        blocking(move || {
            let repository = sandbox.open_trusted()?;
            let found = changes(&repository, before, now).map_err(library())?;
            let mut changed: Vec<UndoneFile> = Vec::new();
            for Change { path, new, is_added } in found {
                let made = new.map(|(made, _)| made);
                match changed.last_mut().filter(|file| file.path == path) {
                    // A link in the place of a file is told as two changes.
                    Some(file) => {
                        *file = UndoneFile { path, made: made.or(file.made), is_added: false }
                    }
                    None => changed.push(UndoneFile { path, made, is_added }),
                }
            }
            Ok(Undone { changed, left: 0 })
        })
        .await
    }

    /// The rules about files that count, as a tree. One that is no plain file, or cannot be read, stands there
    /// as a link and is left alone.
    fn rules(worktree: &Worktree, head: &Commit<'_>) -> Result<Oid, GitError> {
        let mut rules = Index::new().map_err(library())?;
        for path in worktree.rule_files(head)? {
            let content = rule_file::read(&worktree.top, &path).ok().flatten();
            let mode = if content.is_some() { PLAIN } else { LINK };
            let keep = || {
                let id = worktree.repository.blob(&content.unwrap_or_default())?;
                rules.add(&unseen(path.as_os_str().as_bytes().to_vec(), id, mode))
            };
            keep().map_err(library())?;
        }
        rules.write_tree_to(&worktree.repository).map_err(library())
    }

    /// Puts back the rules that hold for files of the tree `before`.
    fn put_rules_back(&self, before: Oid, reading: &Reading) -> Result<Undone, GitError> {
        let worktree = Worktree::open(self, reading)?;
        let repository = &worktree.repository;
        let head = self.branch_head(repository)?;
        let known = repository.refname_to_id(RULES).and_then(|id| repository.find_tree(id));
        let known = known.and_then(|tree| files_of(&tree)).map_err(library())?;
        let before = repository.find_tree(before).map_err(library())?;
        let mut undone = Undone::default();
        // Behind rules that are taken away there may be others.
        for _ in 0..DEEPEST {
            let found = worktree.rule_files(&head)?.into_iter();
            let new = found.filter(|path| known.get_path(path, 0).is_none());
            let concerns = |path: &PathBuf| match path.parent().filter(|at| *at != Path::new("")) {
                Some(folder) => before.get_path(folder).is_ok(),
                None => true,
            };
            let mut wrong: Vec<(PathBuf, Option<Vec<u8>>)> =
                new.filter(concerns).map(|path| (path, None)).collect();
            for entry in known.iter().filter(|entry| entry.mode == PLAIN) {
                let path = PathBuf::from(OsStr::from_bytes(&entry.path));
                let rules = repository.find_blob(entry.id).map_err(library())?;
                let there = rule_file::read(&worktree.top, &path).ok().flatten();
                if there.as_deref() != Some(rules.content()) {
                    wrong.push((path, Some(rules.content().to_vec())));
                }
            }
            if wrong.is_empty() {
                break;
            }
            for (path, content) in wrong {
                let there = rule_file::read(&worktree.top, &path).ok().flatten();
                let made = there.map(|there| repository.blob(&there)).transpose();
                let made = made.map_err(library())?;
                self.set_file(&path, content.as_deref())?;
                undone.changed.push(UndoneFile { path, made, is_added: content.is_none() });
            }
        }
        Ok(undone)
    }

    fn remember(&self, repository: &Repository, name: &str, tree: Oid) -> Result<(), GitError> {
        // Left by a process that was killed; the lock of the order says that it is gone.
        let _ = std::fs::remove_file(self.trusted.join(format!("{name}.lock")));
        let kept = repository.reference(name, tree, true, "before somebody looks");
        kept.map(drop).map_err(GitError::library("remember the files of the agent"))
    }

    async fn forget(&self, lock: FileLock) -> Result<(), GitError> {
        let sandbox = self.clone();
        blocking(move || {
            let _ = std::fs::remove_file(sandbox.trusted.join(format!("{REMEMBERED}.lock")));
            let repository = sandbox.open_trusted()?;
            let forgotten = match repository.find_reference(REMEMBERED) {
                Ok(mut found) => found.delete(),
                Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(()),
                Err(error) => Err(error),
            };
            drop(lock);
            forgotten.map_err(GitError::library("forget how the files were"))
        })
        .await
    }
}

/// The tree of the files as they were before somebody who is not done began to look at them.
pub(super) fn remembered(repository: &Repository) -> Option<Oid> {
    let tree = repository.refname_to_id(REMEMBERED).ok()?;
    repository.find_tree(tree).is_ok().then_some(tree)
}

fn library() -> impl FnOnce(git2::Error) -> GitError {
    GitError::library("compare the files with what they were")
}
