//! Brings two versions of a folder together that were made from one, and marks the places at which both changed.

use std::{collections::BTreeSet, ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use git2::{
    Index, IndexConflict, IndexEntry, MergeFileInput, MergeFileOptions, MergeOptions, Oid,
    Repository, merge_file,
};

use super::index_entry::{EXECUTABLE, PLAIN};

/// How a line begins and goes on that opens a place with two versions.
pub(super) const MARK: &str = "<<<<<<< the work of this order";

/// Three trees, and how theirs is called in a mark.
pub(super) struct Versions<'a> {
    pub(super) before: Oid,
    pub(super) ours: Oid,
    pub(super) theirs: Oid,
    pub(super) label: &'a str,
}

/// What came of it.
pub(super) struct Merged {
    /// The tree; where both changed the same place of a file, with both versions between marks. A file that
    /// cannot hold marks is ours.
    pub(super) tree: Oid,
    /// The files of which that is true.
    pub(super) conflicts: Vec<String>,
}

pub(super) fn merge(
    repository: &Repository,
    versions: &Versions<'_>,
) -> Result<Merged, git2::Error> {
    let Versions { before, ours, theirs, label } = *versions;
    if ours == before || theirs == before {
        let tree = if ours == before { theirs } else { ours };
        return Ok(Merged { tree, conflicts: Vec::new() });
    }
    let tree = |id| repository.find_tree(id);
    let options = MergeOptions::new();
    let mut index =
        repository.merge_trees(&tree(before)?, &tree(ours)?, &tree(theirs)?, Some(&options))?;
    let found = index.conflicts()?.collect::<Result<Vec<_>, _>>()?;
    let mut conflicts = BTreeSet::new();
    let (mut kept_theirs, mut kept_ours) = (Vec::new(), Vec::new());
    for conflict in found {
        let IndexConflict { ancestor, our, their } = &conflict;
        conflicts.extend([ancestor, our, their].into_iter().flatten().map(|e| e.path.clone()));
        match (our, their) {
            (Some(our), Some(their)) if is_file(our) && is_file(their) => {
                kept_ours.push(marked(repository, &conflict, our, their, label)?);
            }
            (Some(our), _) => kept_ours.push(resolved(our, our.id, our.mode)),
            (None, Some(their)) => kept_theirs.push(resolved(their, their.id, their.mode)),
            (None, None) => {}
        }
    }
    for path in &conflicts {
        index.conflict_remove(Path::new(OsStr::from_bytes(path)))?;
    }
    // A file and a folder of one name: ours stays, for theirs is in their commit.
    for entry in &kept_ours {
        index.add(entry)?;
    }
    for entry in &kept_theirs {
        if !is_in_the_way(&index, entry) {
            index.add(entry)?;
        }
    }
    let tree = index.write_tree_to(repository)?;
    let conflicts = conflicts.iter().map(|path| String::from_utf8_lossy(path).into_owned());
    Ok(Merged { tree, conflicts: conflicts.collect() })
}

/// The file with both versions between marks.
fn marked(
    repository: &Repository,
    conflict: &IndexConflict,
    our: &IndexEntry,
    their: &IndexEntry,
    label: &str,
) -> Result<IndexEntry, git2::Error> {
    let content =
        |entry: &IndexEntry| repository.find_blob(entry.id).map(|blob| blob.content().to_vec());
    let before =
        conflict.ancestor.as_ref().filter(|entry| is_file(entry)).map(content).transpose()?;
    let (ours, theirs, before) = (content(our)?, content(their)?, before.unwrap_or_default());
    let (mut first, mut second, mut third) =
        (MergeFileInput::new(), MergeFileInput::new(), MergeFileInput::new());
    first.content(&before);
    second.content(&ours);
    third.content(&theirs);
    let mut options = MergeFileOptions::new();
    options.our_label(MARK.trim_start_matches("<<<<<<< ")).their_label(label).style_standard(true);
    let merged = merge_file(&first, &second, &third, Some(&mut options))?;
    let id = repository.blob(merged.content())?;
    let unchanged = conflict.ancestor.as_ref().is_some_and(|ancestor| ancestor.mode == our.mode);
    Ok(resolved(our, id, if unchanged { their.mode } else { our.mode }))
}

fn resolved(entry: &IndexEntry, id: Oid, mode: u32) -> IndexEntry {
    IndexEntry { id, mode, flags: 0, flags_extended: 0, path: entry.path.clone(), ..*entry }
}

/// Whether one cannot stand beside the other files of an index.
fn is_in_the_way(index: &Index, entry: &IndexEntry) -> bool {
    let path = Path::new(OsStr::from_bytes(&entry.path));
    let mut folders = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
    let above = folders.any(|folder| index.get_path(folder, 0).is_some());
    let below = index.find_prefix(path.join("")).is_ok();
    above || below
}

fn is_file(entry: &IndexEntry) -> bool {
    matches!(entry.mode, PLAIN | EXECUTABLE)
}

#[cfg(test)]
mod tests {
    use git2::{Index, IndexEntry, IndexTime, Oid, Repository};

    use super::{MARK, Merged, PLAIN, Versions, merge};

    const LINK: u32 = 0o120_000;

    fn tree(repository: &Repository, files: &[(&str, &str, u32)]) -> Oid {
        let mut index = Index::new().unwrap();
        for (path, text, mode) in files {
            let never = IndexTime::new(0, 0);
            let (id, path) = (repository.blob(text.as_bytes()).unwrap(), path.as_bytes().to_vec());
            let (ctime, mtime, dev, ino, mode, uid, gid) = (never, never, 0, 0, *mode, 0, 0);
            let (file_size, flags, flags_extended) = (0, 0, 0);
            let entry = IndexEntry {
                ctime,
                mtime,
                dev,
                ino,
                mode,
                uid,
                gid,
                file_size,
                id,
                flags,
                flags_extended,
                path,
            };
            index.add(&entry).unwrap();
        }
        index.write_tree_to(repository).unwrap()
    }

    fn merged(
        ours: &[(&str, &str, u32)],
        theirs: &[(&str, &str, u32)],
    ) -> (Vec<String>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(folder.path()).unwrap();
        let before = tree(&repository, &[("a", "1\n", PLAIN), ("src/x", "1\n", PLAIN)]);
        let (ours, theirs) = (tree(&repository, ours), tree(&repository, theirs));
        let Merged { tree, conflicts } =
            merge(&repository, &Versions { before, ours, theirs, label: "feat/x" }).unwrap();
        let mut index = Index::new().unwrap();
        index.read_tree(&repository.find_tree(tree).unwrap()).unwrap();
        let read = |entry: IndexEntry| {
            let blob = repository.find_blob(entry.id).unwrap();
            let text = String::from_utf8_lossy(blob.content()).replace('\n', "|");
            format!("{} {text}", String::from_utf8_lossy(&entry.path))
        };
        (index.iter().map(read).collect(), conflicts)
    }

    #[test]
    fn both_versions_of_a_place_stand_between_marks() {
        let (files, conflicts) = merged(
            &[("a", "ours\n", PLAIN), ("src/x", "1\n", PLAIN), ("new", "o\n", PLAIN)],
            &[("a", "theirs\n", PLAIN), ("src/x", "2\n", PLAIN), ("new", "t\n", PLAIN)],
        );
        assert_eq!(conflicts, ["a", "new"]);
        assert_eq!(files[0], format!("a {MARK}|ours|=======|theirs|>>>>>>> feat/x|"));
        assert_eq!((files[1].matches('|').count(), files[2].as_str()), (5, "src/x 2|"));
    }

    #[test]
    fn what_cannot_hold_marks_is_ours_and_what_is_left_of_a_file_stays() {
        let (files, conflicts) =
            merged(&[("src", "/elsewhere", LINK)], &[("a", "2\n", PLAIN), ("src/x", "2\n", PLAIN)]);
        assert!(conflicts.contains(&"a".to_owned()) && conflicts.contains(&"src/x".to_owned()));
        assert_eq!(files, ["a 2|", "src /elsewhere"]);
    }
}
