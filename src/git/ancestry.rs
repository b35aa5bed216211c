//! Which commits lie between two others. libgit2's own walks read past the limits of a repository without
//! its history; these look at one commit after the other.

use std::collections::{BinaryHeap, HashSet};

use git2::{Oid, Repository};

/// The most commits that are looked at.
const MOST: usize = 10_000;
/// How much older than its parent a commit may be, by the clocks of those who made them, in seconds.
const SKEW: i64 = 7 * 24 * 3600;

/// The commits from `upper` down to `lower`, which is left out, newest first, by their first parents: the line
/// that the runner and most people extend. `None` when that line does not lead to `lower`.
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

/// Whether `upper` is `lower` or builds on it, by any parent: whoever merges chooses which is the first.
pub(super) fn builds_on(repository: &Repository, upper: Oid, lower: Oid) -> bool {
    let time = |id: Oid| repository.find_commit(id).map(|commit| commit.time().seconds());
    let (Ok(newest), Ok(oldest)) = (time(upper), time(lower)) else { return false };
    // The newest first: what is much older than `lower` does not lead to it.
    let mut pending = BinaryHeap::from([(newest, upper)]);
    let mut seen = HashSet::from([upper]);
    while let Some((at, id)) = pending.pop() {
        if id == lower {
            return true;
        }
        if at < oldest - SKEW || seen.len() > MOST {
            return false;
        }
        // At the limit of a history, a parent has a name and is not there.
        let Ok(commit) = repository.find_commit(id) else { continue };
        for parent in commit.parent_ids() {
            if seen.insert(parent)
                && let Ok(at) = time(parent)
            {
                pending.push((at, parent));
            }
        }
    }
    false
}

/// The newest commit on the line from `head` down to `base` that `other` builds on.
pub(super) fn fork_point(repository: &Repository, head: Oid, base: Oid, other: Oid) -> Option<Oid> {
    let mut line = commits_between(repository, head, base).ok()?.unwrap_or_default();
    line.push(base);
    line.into_iter().find(|commit| builds_on(repository, other, *commit))
}

fn has(repository: &Repository, commit: Oid) -> bool {
    repository.odb().is_ok_and(|objects| objects.exists(commit))
}

#[cfg(test)]
mod tests {
    use git2::{Oid, Repository, Signature};

    use super::{builds_on, commits_between, fork_point};

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
        let other_way = commit(&repository, &[other, merge]);
        assert!(builds_on(&repository, other_way, own) && builds_on(&repository, merge, other));
        assert!(!builds_on(&repository, own, other));
        let theirs = commit(&repository, &[own, own]);
        assert_eq!(fork_point(&repository, merge, base, theirs), Some(own));
        assert_eq!(fork_point(&repository, merge, base, base), Some(base));
        let nowhere = Oid::from_str(&"1".repeat(40)).unwrap();
        assert!(builds_on(&repository, own, base) && !builds_on(&repository, base, own));
        assert!(!builds_on(&repository, nowhere, base) && !builds_on(&repository, own, nowhere));
    }
}
