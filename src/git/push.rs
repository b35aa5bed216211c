//! Sends the branch of an order to its remote, from the repository the agent cannot write.

use super::{Git, GitError, Remote, Sandbox};
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
        let (sha, name) = (head.sha, self.branch.full_ref());
        let outcome = self
            .git
            .invoke("push")
            .args(["--porcelain", "--no-verify"])
            .arg(format!("--force-with-lease={name}:{}", expected.unwrap_or_default()))
            .args(["--", remote.url.clone_url()])
            .arg(format!("{sha}:{name}"))
            .within(&self.trusted)
            .with_remote(remote)
            .holding(&lock)
            .run()
            .await?;
        let line = outcome.stdout.lines().find(|line| line.contains(&format!(":{name}\t")));
        if outcome.status.success() {
            let already_there = line.is_some_and(|line| line.starts_with('='));
            return Ok(Pushed { sha, already_there });
        }
        let refused = line.filter(|line| line.starts_with('!'));
        let Some(refused) = refused else {
            // The connection may have broken after the server had taken the branch.
            let failure =
                outcome.failure("push", Some(remote.url.clone_url()), Some(&self.trusted));
            let found = match &failure {
                GitError::Unreachable { .. } => self.git.branch_head(remote, &self.branch).await,
                _ => Ok(None),
            };
            return match found {
                Ok(Some(found)) if found == sha => Ok(Pushed { sha, already_there: true }),
                _ => Err(failure),
            };
        };
        match self.git.branch_head(remote, &self.branch).await? {
            Some(found) if found == sha => Ok(Pushed { sha, already_there: true }),
            Some(found) if Some(found.as_str()) != expected => {
                Err(GitError::BranchMoved { branch: self.branch.to_string(), found })
            }
            // Deleted by somebody, when we expected our own commit: as good as moved.
            None if expected.is_some() && refused.contains("stale info") => {
                let branch = self.branch.to_string();
                Err(GitError::BranchMoved { branch, found: "nothing (it was deleted)".to_owned() })
            }
            _ => Err(self.refusal(remote, refused, &outcome.stderr)),
        }
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
        let url = remote.url.to_string();
        if detail.contains("`workflow` scope") || detail.contains("permission") {
            return GitError::Auth { url, detail };
        }
        GitError::Rejected { url, branch: self.branch.to_string(), detail }
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
