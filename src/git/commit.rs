//! The runner's own commit, and what it would hold.

use std::path::Path;

use git2::{Commit, Diff, DiffFormat, DiffOptions, Oid, Repository, Signature};

use super::{
    GitError, LeftOut, Remote, Sandbox,
    ancestry::commits_between,
    blocking,
    follow::THEIRS,
    merge::MARK,
    reading::reading,
    secrets::refuse_secrets,
    worktree::{Staged, Worktree},
};
use crate::domain::WorkOrderId;

/// The most of a diff that is kept, in bytes.
const DIFF_LIMIT: usize = 1 << 20;
/// Files above this many bytes are compared as a whole, not line by line.
const TEXT_LIMIT: i64 = 8 << 20;
/// The trailer by which the runner recognises its own commits.
const TRAILER: &str = "Archon-Work-Order";

/// How the agent's files differ from the commit the order started from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files added, changed or removed.
    pub files_changed: u32,
    /// Lines added.
    pub insertions: u32,
    /// Lines removed.
    pub deletions: u32,
    /// The difference in unified form, at most 1 MiB of it, without secrets.
    pub diff: String,
    /// Whether the difference is longer than what is kept.
    pub truncated: bool,
    /// Whether some of it is not on the order's branch yet.
    pub uncommitted: bool,
    /// What the agent left and no commit holds.
    pub left_out: LeftOut,
    /// Why a commit will be refused, as a sentence.
    pub refused: Option<String>,
}

/// A commit on the branch of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// The commit.
    pub sha: String,
    /// The commit before it.
    pub parent: String,
    /// Files that differ between the base of the order and this commit.
    pub files_changed: u32,
    /// Commits between the base of the order and this one, itself included.
    pub commit_count: u32,
    /// The message, with its trailer.
    pub message: String,
}

impl Sandbox {
    /// How the agent's files differ from the commit the order started from.
    #[tracing::instrument(name = "git.diff", skip_all, fields(order = %self.order))]
    pub async fn changes(&self) -> Result<Changes, GitError> {
        let (sandbox, lock) = (self.clone(), self.git.lock_order(&self.order).await?);
        reading(move |reading| {
            let worktree = Worktree::open(&sandbox, reading)?;
            let repository = &worktree.repository;
            let base = sandbox.base(repository)?;
            let head = sandbox.branch_head(repository)?;
            let Staged { tree, left_out, refused } = worktree.stage(&head)?;
            let changes = difference(repository, &base, tree)
                .map_err(GitError::library("compare the files of the agent with the base"))?;
            drop(lock);
            let diff = sandbox.git.redactor().text(&changes.diff);
            let (uncommitted, refused) =
                (tree != head.tree_id(), refused.map(|refused| refused.sentence()));
            Ok(Changes { diff, uncommitted, left_out, refused, ..changes })
        })
        .await
    }

    /// Commits the agent's files to the branch of the order; `None` when there is nothing to
    /// commit. Called again after a crash it returns the commit that is already there.
    #[tracing::instrument(name = "git.commit", skip_all, fields(order = %self.order))]
    pub async fn commit(&self, message: &str) -> Result<Option<CommitInfo>, GitError> {
        let message = with_trailer(&self.git.redactor().text(message), &self.order);
        let (sandbox, lock) = (self.clone(), self.git.lock_order(&self.order).await?);
        reading(move |reading| {
            let worktree = Worktree::open(&sandbox, reading)?;
            let repository = &worktree.repository;
            let parent = sandbox.branch_head(repository)?;
            let Staged { tree, refused, .. } = worktree.stage(&parent)?;
            if let Some(refused) = refused {
                return Err(refused);
            }
            sandbox.refuse_marks(repository, tree)?;
            if tree != parent.tree_id() {
                refuse_secrets(sandbox.git.redactor(), repository, &parent, tree)?;
                sandbox
                    .record(repository, &parent, tree, &message)
                    .map_err(GitError::library("commit the files of the agent"))?;
            } else if is_ours(&parent, &sandbox.order)
                && let Ok(before) = parent.parent(0)
            {
                // Made by an earlier run; what is a secret may have become known since.
                refuse_secrets(sandbox.git.redactor(), repository, &before, tree)?;
            }
            if !sandbox.conflicts.is_empty() {
                Sandbox { conflicts: Vec::new(), ..sandbox.clone() }.amend_record()?;
            }
            let info = sandbox.ahead(repository);
            drop(lock);
            info
        })
        .await
    }

    /// The head of the order's branch, when it is ahead of the base.
    pub async fn head(&self) -> Result<Option<CommitInfo>, GitError> {
        let sandbox = self.clone();
        blocking(move || {
            let repository = Repository::open_bare(&sandbox.trusted)
                .map_err(GitError::library("open the trusted repository"))?;
            sandbox.ahead(&repository)
        })
        .await
    }

    /// Takes the commits that the remote does not have off the branch, so that the next one holds the present
    /// files alone and nothing of what the remote may have refused. One commit of the present files stays.
    /// `arrived` is the last commit of ours that the remote is known to have had.
    #[tracing::instrument(name = "git.renew_unpushed", skip_all, fields(order = %self.order))]
    pub async fn renew_unpushed(
        &self,
        remote: &Remote,
        arrived: Option<&str>,
        uncommitted: bool,
    ) -> Result<(), GitError> {
        let there = self.git.branch_head(remote, &self.branch).await?;
        let (sandbox, lock) = (self.clone(), self.git.lock_order(&self.order).await?);
        let arrived = arrived.map(str::to_owned);
        blocking(move || {
            let repository = Repository::open_bare(&sandbox.trusted)
                .map_err(GitError::library("open the trusted repository"))?;
            let head = sandbox.branch_head(&repository)?.id();
            let renew = || {
                // What has been there stays as it was made, also when somebody deleted the branch.
                let before = || {
                    let theirs = repository.refname_to_id(THEIRS).ok().map(|id| id.to_string());
                    let base = Some(sandbox.base_commit.clone());
                    [theirs, arrived, base].into_iter().flatten().collect()
                };
                let known = there.map_or_else(before, |there| vec![there]);
                let mut own = None;
                for commit in known.iter().filter_map(|sha| Oid::from_str(sha).ok()) {
                    own = own
                        .or(commits_between(&repository, head, commit)?.map(|own| (commit, own)));
                }
                // The branch has been given something else: the push will say so.
                let Some((kept, own)) = own else { return Ok(()) };
                if own.len() > 1 || (own.len() == 1 && uncommitted) {
                    sandbox.point_branch(&repository, kept, "what was not pushed is made anew")?;
                }
                Ok(())
            };
            let renewed = renew().map_err(GitError::library("take back what was not pushed"));
            drop(lock);
            renewed
        })
        .await
    }

    /// Moves the branch in the trusted repository. The caller holds the lock of the order.
    pub(super) fn point_branch(
        &self,
        repository: &Repository,
        commit: Oid,
        why: &str,
    ) -> Result<(), git2::Error> {
        let name = self.branch.full_ref();
        // Left by a process that was killed; the lock of the order says that it is gone.
        let _ = std::fs::remove_file(self.trusted.join(format!("{name}.lock")));
        repository.reference(&name, commit, true, why)?;
        Ok(())
    }

    pub(super) fn base<'r>(&self, repository: &'r Repository) -> Result<Commit<'r>, GitError> {
        Oid::from_str(&self.base_commit)
            .and_then(|id| repository.find_commit(id))
            .map_err(GitError::library("read the base commit from the repository cache"))
    }

    pub(super) fn branch_head<'r>(
        &self,
        repository: &'r Repository,
    ) -> Result<Commit<'r>, GitError> {
        match repository.refname_to_id(&self.branch.full_ref()) {
            Ok(id) => repository.find_commit(id).map_err(GitError::library("read the last commit")),
            Err(_) => self.base(repository),
        }
    }

    /// Refuses a tree in which a conflict with the work of others is not solved.
    fn refuse_marks(&self, repository: &Repository, tree: Oid) -> Result<(), GitError> {
        let holds_marks = |file: &&String| {
            let entry = repository.find_tree(tree).and_then(|tree| tree.get_path(Path::new(file)));
            let blob = entry.and_then(|entry| repository.find_blob(entry.id()));
            blob.is_ok_and(|blob| {
                blob.content()
                    .split(|byte| *byte == b'\n')
                    .any(|line| line.starts_with(MARK.as_bytes()))
            })
        };
        let left: Vec<&str> =
            self.conflicts.iter().filter(holds_marks).map(String::as_str).collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(GitError::Unsolved { order: self.order.to_string(), files: left.join(", ") })
    }

    fn record(
        &self,
        repository: &Repository,
        parent: &Commit<'_>,
        tree: Oid,
        message: &str,
    ) -> Result<(), git2::Error> {
        let settings = self.git.settings();
        let author = Signature::now(&settings.author_name, &settings.author_email)?;
        let tree = repository.find_tree(tree)?;
        let id = repository.commit(None, &author, &author, message, &tree, &[parent])?;
        self.point_branch(repository, id, "commit by archon-awo")
    }

    fn ahead(&self, repository: &Repository) -> Result<Option<CommitInfo>, GitError> {
        let (base, head) = (self.base(repository)?, self.branch_head(repository)?);
        if head.id() == base.id() {
            return Ok(None);
        }
        let describe = || {
            let diff = compare(repository, &base, head.tree_id())?;
            let own = commits_between(repository, head.id(), base.id())?.unwrap_or_default();
            Ok(CommitInfo {
                sha: head.id().to_string(),
                parent: head.parent_id(0)?.to_string(),
                files_changed: count(diff.deltas().len()),
                commit_count: count(own.len()),
                message: String::from_utf8_lossy(head.message_bytes()).into_owned(),
            })
        };
        describe().map(Some).map_err(GitError::library("describe the last commit"))
    }
}

/// Whether the runner made a commit, for this order.
fn is_ours(commit: &Commit<'_>, order: &WorkOrderId) -> bool {
    let trailer = format!("{TRAILER}: {order}");
    String::from_utf8_lossy(commit.message_bytes()).lines().any(|line| line == trailer)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn compare<'r>(
    repository: &'r Repository,
    base: &Commit<'_>,
    tree: Oid,
) -> Result<Diff<'r>, git2::Error> {
    let mut options = DiffOptions::new();
    options.max_size(TEXT_LIMIT);
    let (old, new) = (base.tree()?, repository.find_tree(tree)?);
    repository.diff_tree_to_tree(Some(&old), Some(&new), Some(&mut options))
}

fn difference(
    repository: &Repository,
    base: &Commit<'_>,
    tree: Oid,
) -> Result<Changes, git2::Error> {
    let diff = compare(repository, base, tree)?;
    let stats = diff.stats()?;
    let (mut text, mut truncated) = (Vec::new(), false);
    let printed = diff.print(DiffFormat::Patch, |_, _, line| {
        if matches!(line.origin(), '+' | '-' | ' ') {
            text.push(u8::try_from(line.origin()).unwrap_or(b' '));
        }
        text.extend_from_slice(line.content());
        truncated = text.len() > DIFF_LIMIT;
        !truncated
    });
    if !truncated {
        printed?;
    }
    text.truncate(DIFF_LIMIT);
    Ok(Changes {
        files_changed: count(stats.files_changed()),
        insertions: count(stats.insertions()),
        deletions: count(stats.deletions()),
        diff: String::from_utf8_lossy(&text).into_owned(),
        truncated,
        ..Changes::default()
    })
}

/// The message as git keeps it: no control characters, and exactly one trailer of ours at its end.
fn with_trailer(message: &str, order: &WorkOrderId) -> String {
    let own = format!("{}:", TRAILER.to_ascii_lowercase());
    let printable = |c: char| c == '\n' || c == '\t' || !c.is_control();
    let lines: Vec<String> = message
        .lines()
        .map(|line| line.chars().filter(|c| printable(*c)).collect::<String>())
        .filter(|line| !line.trim_start().to_ascii_lowercase().starts_with(&own))
        .collect();
    let text = lines.join("\n");
    let text = if text.trim().is_empty() { "Work on the order" } else { text.trim() };
    let is_trailer = |line: &str| {
        line.split_once(": ").is_some_and(|(key, value)| {
            !value.is_empty()
                && !key.is_empty()
                && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        })
    };
    let last = text.rsplit("\n\n").next().unwrap_or_default();
    let has_trailers = text.contains("\n\n") && last.lines().all(is_trailer);
    let gap = if has_trailers { "\n" } else { "\n\n" };
    format!("{text}{gap}{TRAILER}: {order}\n")
}

#[cfg(test)]
mod tests {
    use super::with_trailer;

    fn message(text: &str) -> String {
        with_trailer(text, &"wo-1".parse().unwrap())
    }

    #[test]
    fn a_message_ends_in_exactly_one_trailer_of_this_order() {
        assert_eq!(message("feat: x"), "feat: x\n\nArchon-Work-Order: wo-1\n");
        assert_eq!(
            message("feat: x\n\nbody\n\nArchon-Work-Order: other\n"),
            "feat: x\n\nbody\n\nArchon-Work-Order: wo-1\n"
        );
        assert_eq!(
            message("feat: x\n\nCo-authored-by: A <a@b>"),
            "feat: x\n\nCo-authored-by: A <a@b>\nArchon-Work-Order: wo-1\n"
        );
    }

    #[test]
    fn a_message_without_words_or_with_control_characters_is_usable() {
        assert_eq!(message(" \n\0"), "Work on the order\n\nArchon-Work-Order: wo-1\n");
        assert_eq!(message("a\u{1b}[31mb\0c"), "a[31mbc\n\nArchon-Work-Order: wo-1\n");
    }
}
