//! What a remote says it has: its branches and which of them is the default one.

use std::collections::BTreeMap;

use super::{Git, GitError, Remote};

/// The branches of a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// The branch that new work starts from.
    pub default_branch: String,
    /// Every branch, without `refs/heads/`, and the commit it points at.
    pub branches: BTreeMap<String, String>,
}

impl Git {
    /// Asks a remote for its branches: the cheapest proof that it is there and lets us in.
    #[tracing::instrument(name = "git.ls_remote", skip_all, fields(url = %remote.url))]
    pub async fn verify(&self, remote: &Remote) -> Result<Advertised, GitError> {
        self.prepare().await?;
        let listing = self
            .invoke("ls-remote")
            .args(["--symref", "--", remote.url.clone_url(), "HEAD", "refs/heads/*"])
            .with_remote(remote)
            .check()
            .await?;
        read(&listing.stdout).ok_or_else(|| GitError::Empty { url: remote.url.to_string() })
    }
}

/// Reads the output of `git ls-remote --symref`; `None` when there is no branch.
fn read(listing: &str) -> Option<Advertised> {
    let mut branches = BTreeMap::new();
    let (mut named, mut head) = (None, None);
    for (left, name) in listing.lines().filter_map(|line| line.split_once('\t')) {
        if let Some(target) = left.strip_prefix("ref: ") {
            if name == "HEAD" {
                named = target.strip_prefix("refs/heads/");
            }
        } else if name == "HEAD" {
            head = Some(left);
        } else if let Some(branch) = name.strip_prefix("refs/heads/") {
            branches.insert(branch.to_owned(), left.to_owned());
        }
    }
    // A server may hide which branch HEAD names, or name one that does not exist yet.
    let default_branch = named
        .filter(|branch| branches.contains_key(*branch))
        .or_else(|| ["main", "master"].into_iter().find(|name| branches.contains_key(*name)))
        .map(str::to_owned)
        .or_else(|| {
            let at_head = branches.iter().find(|(_, sha)| Some(sha.as_str()) == head);
            at_head.or(branches.iter().next()).map(|(branch, _)| branch.clone())
        })?;
    Some(Advertised { default_branch, branches })
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn the_default_branch_is_the_one_head_names() {
        let listing =
            "ref: refs/heads/trunk\tHEAD\naa\tHEAD\nbb\trefs/heads/main\naa\trefs/heads/trunk\n";
        let found = read(listing).expect("two branches");
        assert_eq!(found.default_branch, "trunk");
        assert_eq!(found.branches.len(), 2);
    }

    #[test]
    fn a_default_branch_is_found_without_a_name_and_none_without_branches() {
        let default = |listing: &str| read(listing).map(|found| found.default_branch);
        assert_eq!(default("aa\trefs/heads/x\nbb\trefs/heads/master\n").as_deref(), Some("master"));
        assert_eq!(default("bb\tHEAD\naa\trefs/heads/x\nbb\trefs/heads/y\n").as_deref(), Some("y"));
        assert_eq!(default("ref: refs/heads/gone\tHEAD\naa\trefs/heads/x\n").as_deref(), Some("x"));
        assert_eq!(default(""), None);
    }
}
