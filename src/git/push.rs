//! Sends the branch of an order to its remote, from the repository the agent cannot write.

use super::{
    Git, GitError, Remote, Sandbox, ancestry::builds_on, blocking, lock::FileLock,
    refusal::Refusal, words,
};
use crate::domain::{BranchName, clash};

/// A branch that is on its remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The commit it points at.
    pub sha: String,
    /// Whether it already did: the answer to an earlier push was lost.
    pub already_there: bool,
}

impl Sandbox {
    /// Pushes the branch. What the remote has of it must be a part of it already, or one of `replaced`:
    /// commits of ours from before the order began anew. Anything else belongs to somebody else and is
    /// left alone.
    #[tracing::instrument(name = "git.push", skip_all, fields(order = %self.order))]
    pub async fn push(&self, remote: &Remote, replaced: &[String]) -> Result<Pushed, GitError> {
        let Some(head) = self.head().await? else {
            let problem = format!("the branch {} has no commit to push", self.branch);
            return Err(GitError::Unusable(problem));
        };
        let lock = self.git.lock_order(&self.order).await?;
        let there = self.git.branch_head(remote, &self.branch).await?;
        if let Some(found) = there.clone().filter(|found| *found != head.sha)
            && !replaced.contains(&found)
            && !self.holds(&found).await?
        {
            return Err(GitError::BranchMoved { branch: self.branch.to_string(), found });
        }
        if there.as_deref() != Some(&head.sha) {
            self.send_contents(remote, &lock).await?;
        }
        self.push_once(remote, &head.sha, there.as_deref(), &lock).await
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
        match self.git.branch_head(remote, &self.branch).await? {
            Some(found) if found == sha => Ok(pushed(true)),
            found if found.as_deref() != expected => Err(GitError::BranchMoved {
                branch: self.branch.to_string(),
                found: found.unwrap_or_else(|| "nothing (it was deleted)".to_owned()),
            }),
            Some(_) => Err(self.refusal(remote, refused, &outcome.stderr)),
            None => match self.in_the_way(remote).await? {
                Some(error) => Err(error),
                None => Err(self.refusal(remote, refused, &outcome.stderr)),
            },
        }
    }

    /// Whether a commit belongs to the branch: its head builds on it, and the order did not start from a
    /// later one.
    async fn holds(&self, sha: &str) -> Result<bool, GitError> {
        let (trusted, name, sha) = (self.trusted.clone(), self.branch.full_ref(), sha.to_owned());
        let base = self.base_commit.clone();
        blocking(move || {
            let check = || {
                let repository = git2::Repository::open_bare(&trusted)?;
                let (sha, base) = (git2::Oid::from_str(&sha)?, git2::Oid::from_str(&base)?);
                let head = repository.refname_to_id(&name)?;
                let above = |upper, lower| builds_on(&repository, upper, lower);
                Ok::<bool, git2::Error>(above(head, sha) && (sha == base || !above(base, sha)))
            };
            // A commit we do not even have is not ours.
            Ok(check().unwrap_or(false))
        })
        .await
    }

    /// A branch that came meanwhile and beside which this one cannot stand.
    async fn in_the_way(&self, remote: &Remote) -> Result<Option<GitError>, GitError> {
        let advertised = self.git.verify(remote).await?;
        let names = advertised.branches.keys().map(String::as_str);
        let existing = clash(&self.branch, names).map(|clash| clash.existing().to_owned());
        let branch = self.branch.to_string();
        Ok(existing.map(|existing| GitError::BranchConflict { branch, existing }))
    }

    /// The server has a rule: a protected branch, a hook, a missing permission.
    fn refusal(&self, remote: &Remote, line: &str, stderr: &str) -> GitError {
        let Refusal { reason, told, answer } = Refusal::read(line, stderr);
        let detail = if told.is_empty() { reason.clone() } else { format!("{reason}: {told}") };
        let (url, branch) = (remote.url.to_string(), self.branch.to_string());
        match words::refusal(&reason, stderr) {
            words::Refusal::Contended => return GitError::Contended { url, branch, detail },
            words::Refusal::Server => return GitError::ServerFailed { url, detail },
            words::Refusal::Name(existing) => {
                let existing = existing.unwrap_or_else(|| "of such a name".to_owned());
                return GitError::BranchConflict { branch, existing };
            }
            words::Refusal::Rule => {}
        }
        if detail.contains("`workflow` scope") || detail.contains("permission") {
            return GitError::Auth { url, detail };
        }
        let (order, answer) = (self.order.to_string(), answer.into());
        GitError::Rejected { url, branch, order, detail, answer }
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
