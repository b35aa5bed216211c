//! Our own folders that somebody closed: an agent that has the worker's user may change the mode of what that
//! user owns. What is ours is opened again, and of the rest is said who has to do it.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use nix::unistd::{AccessFlags, access, geteuid};

/// What the owner of a folder, and of a file, must be allowed.
const FOLDER: u32 = 0o700;
const FILE: u32 = 0o400;
/// Entries that are looked at in one go; a volume that has more is looked at again.
const MOST: usize = 100_000;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Closed {
    /// Folders and files that were closed, and are open again.
    pub opened: usize,
    /// The first that stays closed, in words.
    pub still: Option<String>,
    seen: usize,
}

impl Closed {
    /// Whether something was closed.
    pub fn any(&self) -> bool {
        self.opened > 0 || self.still.is_some()
    }

    /// Looks at a folder and at `depth` levels of folders below it; with `files` at what else is in them too.
    /// A folder that does not exist is not closed. Links are not followed. Blocks.
    pub fn look(&mut self, folder: &Path, depth: usize, files: bool) {
        self.enter(folder, depth, files, true);
    }

    /// What lies below and is not ours, such as `lost+found`, need not be open.
    fn enter(&mut self, folder: &Path, depth: usize, files: bool, must_be_open: bool) {
        let Ok(found) = fs::symlink_metadata(folder) else { return };
        if !found.is_dir() || self.seen >= MOST {
            return;
        }
        self.seen += 1;
        self.open(folder, &found, FOLDER);
        let may = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
        if let Err(error) = access(folder, may) {
            let (path, owner) = (folder.display(), found.uid());
            if !must_be_open && owner != geteuid().as_raw() {
                return;
            }
            self.still.get_or_insert_with(|| {
                format!("{path} is closed to this user ({error}): its owner, user {owner}, can open it by chmod u+rwx, or chown it")
            });
            return;
        }
        let below = depth.checked_sub(1);
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        for entry in entries.take(MOST) {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                if let Some(depth) = below {
                    self.enter(&entry.path(), depth, files, false);
                }
            } else if files && kind.is_file() {
                self.seen += 1;
                if let Ok(found) = entry.metadata() {
                    self.open(&entry.path(), &found, FILE);
                }
            }
        }
    }

    fn open(&mut self, path: &Path, found: &fs::Metadata, least: u32) {
        let mode = found.mode();
        if mode & least == least || found.uid() != geteuid().as_raw() {
            return;
        }
        // It was no link a moment ago, and nothing that is ours is reached by one an agent puts there: the
        // folders above are not the agent's.
        if fs::set_permissions(path, fs::Permissions::from_mode((mode | least) & 0o7777)).is_ok() {
            self.opened += 1;
        }
    }
}

/// Looks at a volume of ours: the folder itself, those in it, and those of caches. Blocks.
pub fn look_at_volume(folder: &Path) -> Closed {
    let mut closed = Closed::default();
    closed.look(folder, 1, false);
    closed.look(&folder.join(".cache"), 2, false);
    if closed.opened > 0 {
        tracing::warn!(
            folder = %folder.display(), opened = closed.opened,
            "folders of ours were closed, as an agent with the worker's user can do it: they are open again"
        );
    }
    closed
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::{Closed, look_at_volume};

    fn mode(path: &std::path::Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_is_ours_is_opened_again() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("volume");
        for name in ["wo-1/app", ".cache/mirrors/0a/objects"] {
            fs::create_dir_all(volume.join(name)).unwrap();
        }
        let close = |name: &str| {
            fs::set_permissions(volume.join(name), fs::Permissions::from_mode(0o000)).unwrap();
        };
        assert_eq!(look_at_volume(&volume), look_at_volume(&volume));
        assert!(!look_at_volume(&volume).any());
        for name in [".cache/mirrors/0a", ".cache/mirrors", ".cache", "wo-1", ""] {
            close(name);
        }
        let closed = look_at_volume(&volume);
        assert_eq!((closed.opened, closed.still), (5, None));
        assert_eq!(mode(&volume.join(".cache/mirrors/0a")), 0o700);
        assert!(!look_at_volume(&volume).any());
        // A whole tree, with its files, of what only we write.
        fs::write(volume.join(".cache/mirrors/0a/objects/file"), "x").unwrap();
        for name in [".cache/mirrors/0a/objects/file", ".cache/mirrors/0a/objects"] {
            close(name);
        }
        let mut deep = Closed::default();
        deep.look(&volume.join(".cache"), 16, true);
        assert_eq!((deep.opened, deep.still), (2, None));
        assert_eq!(mode(&volume.join(".cache/mirrors/0a/objects/file")), 0o400);
    }
}
