//! Which commits lie between two others. libgit2's own walks read past the limits of a repository without
//! its history; these look at one commit after the other, by their first parents: the line that the runner
//! and whoever updates a branch of an order extend.

use git2::{Oid, Repository};

/// The most commits that are looked at.
const MOST: usize = 10_000;

/// The commits from `upper` down to `lower`, which is left out, newest first; `None` when `lower` is not below
/// `upper`.
pub(super) fn commits_between(
    repository: &Repository,
    upper: Oid,
    lower: Oid,
) -> Result<Option<Vec<Oid>>, git2::Error> {
    let (mut found, mut at) = (Vec::new(), upper);
    while at != lower {
        found.push(at);
        let commit = repository.find_commit(at)?;
        // At the limit of a history, the first parent has a name and is not there.
        match commit.parent_ids().next() {
            Some(parent) if found.len() < MOST && has(repository, parent) => at = parent,
            _ => return Ok(None),
        }
    }
    Ok(Some(found))
}

/// Whether `upper` is `lower` or builds on it.
pub(super) fn builds_on(repository: &Repository, upper: Oid, lower: Oid) -> bool {
    has(repository, upper)
        && commits_between(repository, upper, lower).is_ok_and(|found| found.is_some())
}

fn has(repository: &Repository, commit: Oid) -> bool {
    repository.odb().is_ok_and(|objects| objects.exists(commit))
}

#[cfg(test)]
mod tests {
    use git2::{Oid, Repository, Signature};

    use super::{builds_on, commits_between};

    fn commit(repository: &Repository, parents: &[Oid]) -> Oid {
        let author = Signature::now("a", "a@b").unwrap();
        let folder = repository.treebuilder(None).unwrap().write().unwrap();
        let tree = repository.find_tree(folder).unwrap();
        let parents: Vec<_> =
            parents.iter().map(|id| repository.find_commit(*id).unwrap()).collect();
        let parents: Vec<_> = parents.iter().collect();
        let message = format!("{} parents", parents.len());
        repository.commit(None, &author, &author, &message, &tree, &parents).unwrap()
    }

    #[test]
    fn a_line_of_commits_is_followed_through_merges_and_ends_where_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(folder.path()).unwrap();
        let base = commit(&repository, &[]);
        let own = commit(&repository, &[base]);
        let other = commit(&repository, &[base, own]);
        let merge = commit(&repository, &[own, other]);
        let between = |upper, lower| commits_between(&repository, upper, lower).unwrap();
        assert_eq!(between(merge, base), Some(vec![merge, own]));
        assert_eq!(between(base, base), Some(vec![]));
        assert_eq!(between(own, merge), None);
        let nowhere = Oid::from_str(&"1".repeat(40)).unwrap();
        assert!(builds_on(&repository, own, base) && !builds_on(&repository, base, own));
        assert!(!builds_on(&repository, nowhere, base) && !builds_on(&repository, own, nowhere));
    }
}
