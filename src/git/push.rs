//! Sends the branch of an order to its remote, from the repository the agent cannot write.

use super::{
    Git, GitError, Remote, Sandbox,
    ancestry::builds_on,
    blocking,
    lock::FileLock,
    words::{Refusal, refusal},
};
use crate::domain::BranchName;

/// A branch that is on its remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The commit it points at.
    pub sha: String,
    /// Whether it already did: the answer to an earlier push was lost.
    pub already_there: bool,
}

impl Sandbox {
    /// Pushes the branch. `expected` is the commit we pushed last, `None` when we never did: a
    /// branch that points anywhere else belongs to somebody else and is left alone.
    #[tracing::instrument(name = "git.push", skip_all, fields(order = %self.order))]
    pub async fn push(&self, remote: &Remote, expected: Option<&str>) -> Result<Pushed, GitError> {
        let Some(head) = self.head().await? else {
            let problem = format!("the branch {} has no commit to push", self.branch);
            return Err(GitError::Unusable(problem));
        };
        let lock = self.git.lock_order(&self.order).await?;
        self.send_contents(remote, &lock).await?;
        match self.push_once(remote, &head.sha, expected, &lock).await {
            // An earlier push of ours whose answer was lost is not somebody else's work.
            Err(GitError::BranchMoved { found, .. }) if self.is_ours(&found).await? => {
                self.push_once(remote, &head.sha, Some(&found), &lock).await
            }
            other => other,
        }
    }

    async fn push_once(
        &self,
        remote: &Remote,
        sha: &str,
        expected: Option<&str>,
        lock: &FileLock,
    ) -> Result<Pushed, GitError> {
        let name = self.branch.full_ref();
        let outcome = self
            .git
            .invoke("push")
            .args(["--porcelain", "--no-verify"])
            .arg(format!("--force-with-lease={name}:{}", expected.unwrap_or_default()))
            .args(["--", remote.url.clone_url()])
            .arg(format!("{sha}:{name}"))
            .within(&self.trusted)
            .with_remote(remote)
            .holding(lock)
            .run()
            .await?;
        let line = outcome.stdout.lines().find(|line| line.contains(&format!(":{name}\t")));
        let pushed = |already_there| Pushed { sha: sha.to_owned(), already_there };
        if outcome.status.success() {
            return Ok(pushed(line.is_some_and(|line| line.starts_with('='))));
        }
        let url = remote.url.clone_url();
        let Some(refused) = line.filter(|line| line.starts_with('!')) else {
            let failure = outcome.failure("push", Some(url), Some(&self.trusted));
            // The connection may have broken after the server had taken the branch.
            let lost =
                matches!(failure, GitError::Unreachable { .. } | GitError::ServerFailed { .. });
            let there = lost
                && self
                    .git
                    .branch_head(remote, &self.branch)
                    .await
                    .is_ok_and(|found| found.as_deref() == Some(sha));
            return if there { Ok(pushed(true)) } else { Err(failure) };
        };
        let branch = || self.branch.to_string();
        match self.git.branch_head(remote, &self.branch).await? {
            Some(found) if found == sha => Ok(pushed(true)),
            Some(found) if Some(found.as_str()) != expected => {
                Err(GitError::BranchMoved { branch: branch(), found })
            }
            // Deleted by somebody, when we expected our own commit: as good as moved.
            None if expected.is_some() && refused.contains("stale info") => {
                let found = "nothing (it was deleted)".to_owned();
                Err(GitError::BranchMoved { branch: branch(), found })
            }
            _ => Err(self.refusal(remote, refused, &outcome.stderr)),
        }
    }

    /// Whether a commit lies between the base and the head of this order's branch.
    async fn is_ours(&self, sha: &str) -> Result<bool, GitError> {
        let (trusted, name, sha) = (self.trusted.clone(), self.branch.full_ref(), sha.to_owned());
        let base = self.base_commit.clone();
        blocking(move || {
            let check = || {
                let repository = git2::Repository::open_bare(&trusted)?;
                let (sha, base) = (git2::Oid::from_str(&sha)?, git2::Oid::from_str(&base)?);
                let head = repository.refname_to_id(&name)?;
                let within = sha != head && sha != base;
                let above = |upper, lower| builds_on(&repository, upper, lower);
                Ok::<bool, git2::Error>(within && above(head, sha) && above(sha, base))
            };
            // A commit we do not even have is not ours.
            Ok(check().unwrap_or(false))
        })
        .await
    }

    /// The server has a rule: a protected branch, a hook, a missing permission.
    fn refusal(&self, remote: &Remote, line: &str, stderr: &str) -> GitError {
        let reason = line.rsplit('\t').next().unwrap_or(line);
        let told: Vec<&str> = stderr
            .lines()
            .filter_map(|line| line.strip_prefix("remote:"))
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .take(5)
            .collect();
        let detail = if told.is_empty() {
            reason.to_owned()
        } else {
            format!("{reason} ({})", told.join("; "))
        };
        let (url, branch) = (remote.url.to_string(), self.branch.to_string());
        match refusal(reason, stderr) {
            Refusal::Contended => return GitError::Contended { url, branch, detail },
            Refusal::Server => return GitError::ServerFailed { url, detail },
            Refusal::Name(existing) => {
                let existing = existing.unwrap_or_else(|| "of such a name".to_owned());
                return GitError::BranchConflict { branch, existing };
            }
            Refusal::Rule => {}
        }
        if detail.contains("`workflow` scope") || detail.contains("permission") {
            return GitError::Auth { url, detail };
        }
        GitError::Rejected { url, branch, detail }
    }
}

impl Git {
    /// Where a branch of a remote points; `None` when it has no such branch.
    pub async fn branch_head(
        &self,
        remote: &Remote,
        branch: &BranchName,
    ) -> Result<Option<String>, GitError> {
        self.prepare().await?;
        let name = branch.full_ref();
        let listing = self
            .invoke("ls-remote")
            .args(["--", remote.url.clone_url(), &name])
            .with_remote(remote)
            .check()
            .await?;
        let found = listing.stdout.lines().filter_map(|line| line.split_once('\t'));
        Ok(found.filter(|(_, found)| *found == name).map(|(sha, _)| sha.to_owned()).next())
    }
}
