//! Reckons the files of a commit before they are checked out: a few kilobytes can name more files, and more
//! bytes, than any disk holds.

use std::collections::HashMap;

use git2::{ObjectType, Odb, Oid, Repository};

use super::{GitError, index_entry::SUBMODULE};

/// The most files a checkout may have: several times the largest repositories there are.
const MOST_FILES: u64 = 4_000_000;
/// The deepest a folder may lie; longer paths have no place on Linux anyway.
const DEEPEST: usize = 1000;

/// What the files of a tree are together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weight {
    pub(super) files: u64,
    /// Bytes of their contents, each as often as it has a name.
    pub(super) bytes: u64,
}

/// Weighs a commit, and refuses one with more files than a checkout may have.
pub(super) fn weigh(repository: &Repository, commit: Oid) -> Result<Weight, GitError> {
    let tree = repository
        .find_commit(commit)
        .and_then(|commit| commit.tree())
        .map_err(GitError::library("read the commit to start from"))?;
    weigh_tree(repository, tree.id(), &format!("the commit {commit}"))
}

/// The same for a tree that `name` stands for.
pub(super) fn weigh_tree(
    repository: &Repository,
    tree: Oid,
    name: &str,
) -> Result<Weight, GitError> {
    let odb = repository.odb().map_err(GitError::library("read the sizes of files"))?;
    let mut scales = Scales { repository, odb, folders: HashMap::new(), files: HashMap::new() };
    let weight = scales.folder(tree, 0)?;
    if weight.files > MOST_FILES {
        return Err(GitError::Unusable(format!("{name} has more than {MOST_FILES} files")));
    }
    Ok(weight)
}

/// Each folder and each file is read once, however often it occurs.
struct Scales<'r> {
    repository: &'r Repository,
    odb: Odb<'r>,
    folders: HashMap<Oid, Weight>,
    files: HashMap<Oid, u64>,
}

impl Scales<'_> {
    fn folder(&mut self, tree: Oid, depth: usize) -> Result<Weight, GitError> {
        if let Some(weight) = self.folders.get(&tree) {
            return Ok(*weight);
        }
        if depth > DEEPEST {
            let problem = format!("the repository has folders more than {DEEPEST} levels deep");
            return Err(GitError::Unusable(problem));
        }
        let folder = self.repository.find_tree(tree).map_err(GitError::library("read a folder"))?;
        let mut weight = Weight::default();
        for entry in &folder {
            let more = match entry.kind() {
                Some(ObjectType::Tree) => self.folder(entry.id(), depth + 1)?,
                // Of another repository.
                _ if u32::try_from(entry.filemode()) == Ok(SUBMODULE) => {
                    Weight { files: 1, bytes: 0 }
                }
                _ => Weight { files: 1, bytes: self.file(entry.id()) },
            };
            weight.files = weight.files.saturating_add(more.files);
            weight.bytes = weight.bytes.saturating_add(more.bytes);
        }
        self.folders.insert(tree, weight);
        Ok(weight)
    }

    /// One that is missing weighs nothing: its checkout will say what is the matter.
    fn file(&mut self, id: Oid) -> u64 {
        let odb = &self.odb;
        *self.files.entry(id).or_insert_with(|| {
            odb.read_header(id).map_or(0, |(size, _)| u64::try_from(size).unwrap_or(u64::MAX))
        })
    }
}

#[cfg(test)]
mod tests {
    use git2::{FileMode, Oid, Repository, Signature};

    use super::{Weight, weigh};

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
            weigh(&repository, commit).map_err(|error| error.to_string()).err()
        };
        assert!(refusal(9, 10).unwrap().contains("more than 4000000 files"));
        assert!(refusal(40, 10).unwrap().contains("files"), "more than a number holds");
        assert!(refusal(1500, 1).unwrap().contains("levels deep"));
        assert_eq!(refusal(3, 10), None);
        let weight = weigh(&repository, nested(&repository, 3, 10)).unwrap();
        assert_eq!(weight, Weight { files: 1000, bytes: 1000 }, "each name counts");
    }
}
