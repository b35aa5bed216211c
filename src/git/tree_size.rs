//! Counts the files of a commit before they are checked out: a few kilobytes of nested folders can
//! name more files than any disk holds.

use std::collections::HashMap;

use git2::{ObjectType, Oid, Repository};

use super::GitError;

/// The most files a checkout may have: several times the largest repositories there are.
const MOST_FILES: u64 = 4_000_000;
/// The deepest a folder may lie; longer paths have no place on Linux anyway.
const DEEPEST: usize = 1000;

/// Refuses a commit with more files than a checkout may have.
pub(super) fn require_sane(repository: &Repository, commit: Oid) -> Result<(), GitError> {
    let tree = repository
        .find_commit(commit)
        .and_then(|commit| commit.tree())
        .map_err(GitError::library("read the commit to start from"))?;
    let files = count(repository, tree.id(), 0, &mut HashMap::new())?;
    if files > MOST_FILES {
        let problem = format!("the commit {commit} has more than {MOST_FILES} files");
        return Err(GitError::Unusable(problem));
    }
    Ok(())
}

/// How many files a folder has. Each is read once, however often it occurs.
fn count(
    repository: &Repository,
    tree: Oid,
    depth: usize,
    known: &mut HashMap<Oid, u64>,
) -> Result<u64, GitError> {
    if let Some(files) = known.get(&tree) {
        return Ok(*files);
    }
    if depth > DEEPEST {
        let problem = format!("the repository has folders more than {DEEPEST} levels deep");
        return Err(GitError::Unusable(problem));
    }
    let folder = repository.find_tree(tree).map_err(GitError::library("read a folder"))?;
    let mut files = 0u64;
    for entry in &folder {
        let more = match entry.kind() {
            Some(ObjectType::Tree) => count(repository, entry.id(), depth + 1, known)?,
            _ => 1,
        };
        files = files.saturating_add(more);
    }
    known.insert(tree, files);
    Ok(files)
}

#[cfg(test)]
mod tests {
    use git2::{FileMode, Oid, Repository, Signature};

    use super::require_sane;

    fn nested(repository: &Repository, levels: usize, width: usize) -> Oid {
        let blob = repository.blob(b"x").unwrap();
        let mut folder = repository.treebuilder(None).unwrap();
        folder.insert("x", blob, FileMode::Blob.into()).unwrap();
        let mut tree = folder.write().unwrap();
        for _ in 0..levels {
            let mut folder = repository.treebuilder(None).unwrap();
            for name in 0..width {
                folder.insert(format!("d{name}"), tree, FileMode::Tree.into()).unwrap();
            }
            tree = folder.write().unwrap();
        }
        let tree = repository.find_tree(tree).unwrap();
        let author = Signature::now("a", "a@b").unwrap();
        repository.commit(None, &author, &author, "x", &tree, &[]).unwrap()
    }

    #[test]
    fn a_few_objects_that_name_a_billion_files_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(folder.path()).unwrap();
        let refusal = |levels, width| {
            let commit = nested(&repository, levels, width);
            require_sane(&repository, commit).map_err(|error| error.to_string()).err()
        };
        assert!(refusal(9, 10).unwrap().contains("more than 4000000 files"));
        assert!(refusal(40, 10).unwrap().contains("files"), "more than a number holds");
        assert!(refusal(1500, 1).unwrap().contains("levels deep"));
        assert_eq!(refusal(3, 10), None);
    }
}
