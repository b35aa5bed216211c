//! How much of a disk a folder takes, its files counted once however often they are linked.
//!
//! The folder may be an agent's, who changes it while it is measured: every folder is opened from
//! its parent's descriptor and links are never followed, so the walk cannot be led out of it.

use std::{collections::HashSet, ffi::OsString, io, path::Path};

use super::beneath::{About, Beneath, Kind};

/// Folders within folders that are measured; each costs a descriptor during the walk.
const DEEPEST: usize = 200;
/// Linked files that are remembered, so that a walk has a limit to its memory.
const MOST_LINKED: usize = 1_000_000;
/// Bytes in a block of `st_blocks`.
const BLOCK: u64 = 512;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Files and folders.
    pub inodes: u64,
    /// Whether a part was not looked at: it lies too deep, or the walk was told to stop.
    pub incomplete: bool,
}

/// A walk under way.
struct Walk<'a> {
    usage: Usage,
    /// Files with several names that were counted.
    linked: HashSet<((u32, u32), u64)>,
    go_on: &'a dyn Fn() -> bool,
}

/// Measures what is below `root`, as long as `go_on` says so. What may not be read counts as much as
/// can be seen of it. Blocks: for about a second on half a million files.
pub fn usage(root: &Path, go_on: &dyn Fn() -> bool) -> io::Result<Usage> {
    let folder = Beneath::open(root)?;
    let mut walk = Walk { usage: Usage::default(), linked: HashSet::new(), go_on };
    walk.count(&folder.itself()?);
    walk.enter(&folder, 0);
    Ok(walk.usage)
}

impl Walk<'_> {
    fn enter(&mut self, folder: &Beneath, depth: usize) {
        let Some(folders) = self.files_of(folder) else { return };
        if depth == DEEPEST {
            self.usage.incomplete |= !folders.is_empty();
            return;
        }
        for name in folders {
            if !(self.go_on)() {
                self.usage.incomplete = true;
                return;
            }
            // It may have become something else by now, or be closed to us.
            if let Ok(below) = folder.folder(Path::new(&name)) {
                self.enter(&below, depth + 1);
            }
        }
    }

    /// Counts what lies in a folder; answers the names of the folders in it.
    fn files_of(&mut self, folder: &Beneath) -> Option<Vec<OsString>> {
        let mut folders = Vec::new();
        let listed = folder.names(|name| {
            if !(self.go_on)() {
                self.usage.incomplete = true;
                return false;
            }
            let Ok(found) = folder.about(Path::new(name)) else { return true };
            match found.kind {
                // Another file system, with a limit of its own.
                Kind::Mount => return true,
                Kind::Folder => folders.push(name.to_owned()),
                _ => {}
            }
            self.count(&found);
            true
        });
        listed.ok().map(|()| folders)
    }

    fn count(&mut self, found: &About) {
        let linked =
            found.kind != Kind::Folder && found.links > 1 && self.linked.len() < MOST_LINKED;
        if linked && !self.linked.insert((found.device, found.inode)) {
            return;
        }
        self.usage.bytes = self.usage.bytes.saturating_add(found.blocks.saturating_mul(BLOCK));
        self.usage.inodes += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::symlink,
        path::{Path, PathBuf},
    };

    use super::{DEEPEST, Usage, usage};

    fn measured(root: &Path) -> Usage {
        usage(root, &|| true).unwrap()
    }

    #[test]
    fn files_count_once_and_nothing_outside_counts() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let empty = measured(root.path());
        assert_eq!(empty.inodes, 1);
        fs::write(outside.path().join("large"), vec![1; 1 << 20]).unwrap();
        fs::create_dir(root.path().join("in")).unwrap();
        let file = root.path().join("in/file");
        fs::write(&file, vec![1; 256 << 10]).unwrap();
        for name in ["one", "two"] {
            fs::hard_link(&file, root.path().join(name)).unwrap();
        }
        symlink(outside.path(), root.path().join("folder")).unwrap();
        symlink(outside.path().join("large"), root.path().join("in/large")).unwrap();
        symlink("..", root.path().join("in/round")).unwrap();
        let found = measured(root.path());
        assert_eq!(found.inodes, 6, "a folder, a file, three links and the top");
        assert!(!found.incomplete);
        let more = found.bytes - empty.bytes;
        assert!((256 << 10..512 << 10).contains(&more), "{more}");
    }

    #[test]
    fn a_sparse_file_takes_what_it_takes() {
        let root = tempfile::tempdir().unwrap();
        fs::File::create(root.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
        assert!(measured(root.path()).bytes < 1 << 20);
    }

    #[test]
    fn depth_and_time_have_an_end() {
        let root = tempfile::tempdir().unwrap();
        let deep: PathBuf = (0..=DEEPEST).map(|_| "d").collect();
        fs::create_dir_all(root.path().join(deep)).unwrap();
        let found = measured(root.path());
        assert!(found.incomplete, "{found:?}");
        assert!(found.inodes >= DEEPEST as u64);
        assert!(usage(root.path(), &|| false).unwrap().incomplete);
        assert!(usage(&root.path().join("none"), &|| true).is_err());
    }
}
