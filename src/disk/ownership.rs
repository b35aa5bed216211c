//! Gives a tree to another user and takes it back, relative to descriptors of its folders: no link is
//! followed, no mount is crossed, and of what others own nothing is changed. It needs the right to give files
//! away and none to open those of others, so folders are given last and taken first.

use std::{
    collections::HashMap,
    ffi::{CStr, CString, OsStr},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::{
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, RawDir, Stat, Uid},
    io::Errno,
};

use super::unlink::open_folder;

/// From whom, to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passing {
    /// What belongs to this user ...
    pub(crate) from: u32,
    /// ... becomes this one's ...
    pub(crate) to: u32,
    /// ... and this group's.
    pub(crate) group: u32,
}

impl Passing {
    /// Gives `folder` and what is in it. A file with names outside of the tree is nobody's to give.
    /// No process of anybody may be at work in it.
    pub(crate) fn give(self, folder: &Path) -> io::Result<()> {
        let (parent, name) = open_parent(folder)?;
        let mut links: HashMap<(u64, u64), u64> = HashMap::new();
        walk(&parent, &name, |_, _, found| {
            if is_linked(found) && found.st_uid == self.from {
                *links.entry((found.st_dev, found.st_ino)).or_default() += 1;
            }
            Ok(())
        })?;
        #[allow(
            clippy::useless_conversion,
            clippy::allow_attributes,
            reason = "32 bits on some machines"
        )]
        let mut elsewhere = |found: &Stat| {
            let here = links.get(&(found.st_dev, found.st_ino)).copied().unwrap_or_default();
            is_linked(found) && here != u64::from(found.st_nlink)
        };
        self.pass(&parent, &name, false, &mut elsewhere)
    }

    /// Takes `folder` and what is in it back; whose it was ran, and nothing of them runs any more.
    pub(crate) fn take(self, folder: &Path) -> io::Result<()> {
        let (parent, name) = open_parent(folder)?;
        self.pass(&parent, &name, true, &mut |_| false)
    }

    fn pass(
        self,
        parent: &OwnedFd,
        name: &CStr,
        folders_first: bool,
        stays: &mut dyn FnMut(&Stat) -> bool,
    ) -> io::Result<()> {
        let mut pass = |at: &OwnedFd, name: &CStr, found: &Stat| {
            if found.st_uid != self.from || stays(found) {
                return Ok(());
            }
            let (user, group) = (Some(Uid::from_raw(self.to)), Some(Gid::from_raw(self.group)));
            match fs::chownat(at, name, user, group, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => Ok(()),
                other => other,
            }
        };
        Walk { folders_first, visit: &mut pass }.run(parent, name)
    }
}

/// Whether it may have a name outside of a tree.
fn is_linked(found: &Stat) -> bool {
    !FileType::from_raw_mode(found.st_mode).is_dir() && found.st_nlink > 1
}

fn walk(
    parent: &OwnedFd,
    name: &CStr,
    mut visit: impl FnMut(&OwnedFd, &CStr, &Stat) -> Result<(), Errno>,
) -> io::Result<()> {
    Walk { folders_first: true, visit: &mut visit }.run(parent, name)
}

fn open_parent(folder: &Path) -> io::Result<(OwnedFd, CString)> {
    let name = folder.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = folder.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((fs::open(parent, flags, Mode::empty())?, CString::new(name.as_bytes())?))
}

/// A walk that holds two descriptors however deep the tree is: nobody else changes it meanwhile, so that
/// `..` leads back, which is compared.
struct Walk<'a> {
    /// Whether a folder is visited before what is in it, or after.
    folders_first: bool,
    visit: &'a mut dyn FnMut(&OwnedFd, &CStr, &Stat) -> Result<(), Errno>,
}

/// A folder on the way from the top to where the walk is.
struct Level {
    name: CString,
    /// What it is, to know it again from below.
    identity: (u64, u64),
    /// Folders in it that were not entered yet.
    inside: Vec<CString>,
}

impl Walk<'_> {
    fn run(mut self, parent: &OwnedFd, name: &CStr) -> io::Result<()> {
        let found = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if !FileType::from_raw_mode(found.st_mode).is_dir() {
            return Ok((self.visit)(parent, name, &found)?);
        }
        let top =
            Level { name: CString::default(), identity: of(parent)?, inside: vec![name.into()] };
        let (mut at, mut levels) = (parent.try_clone()?, vec![top]);
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.inside.pop() {
                if self.folders_first {
                    self.visit_entry(&at, &name)?;
                }
                let folder = match open_folder(&at, &name) {
                    Ok(folder) => folder,
                    // A mount, or not a folder any more.
                    Err(Errno::XDEV | Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                    Err(error) => return Err(named(error, &levels, &name)),
                };
                let inside = self.files(&folder)?;
                levels.push(Level { name, identity: of(&folder)?, inside });
                at = folder;
                continue;
            }
            let done = levels.pop();
            let (Some(done), Some(above)) = (done, levels.last()) else { break };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            // The first was opened by its path and may be above what can be read from below.
            at = if levels.len() == 1 {
                parent.try_clone()?
            } else {
                fs::openat(&at, c"..", flags, Mode::empty())?
            };
            if of(&at)? != above.identity {
                return Err(io::Error::other("the folder was moved while it changed its owner"));
            }
            if !self.folders_first {
                self.visit_entry(&at, &done.name)?;
            }
        }
        Ok(())
    }

    fn visit_entry(&mut self, at: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        match fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => (self.visit)(at, name, &found),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Visits what is no folder; answers the folders.
    fn files(&mut self, folder: &OwnedFd) -> Result<Vec<CString>, Errno> {
        let mut inside = Vec::new();
        let mut buffer = Vec::with_capacity(32 << 10);
        let mut entries = RawDir::new(folder, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let found = fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(found.st_mode).is_dir() {
                inside.push(name.to_owned());
            } else {
                (self.visit)(folder, name, &found)?;
            }
        }
        Ok(inside)
    }
}

fn of(folder: &OwnedFd) -> Result<(u64, u64), Errno> {
    fs::fstat(folder).map(|found| (found.st_dev, found.st_ino))
}

fn named(error: Errno, levels: &[Level], name: &CStr) -> io::Error {
    let names = levels.iter().map(|level| level.name.as_c_str()).chain([name]);
    let names: Vec<_> =
        names.map(|name| OsStr::from_bytes(name.to_bytes()).to_string_lossy()).collect();
    io::Error::new(io::Error::from(error).kind(), format!("{}: {error}", names.join("/")))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
        path::Path,
    };

    use super::Passing;

    const OTHER: u32 = 71_001;

    fn owner(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().uid()
    }

    #[test]
    fn a_tree_changes_hands_and_nothing_beside_it() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("only root can give files away");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let outside = root.path().join("outside");
        fs::write(&outside, "x").unwrap();
        let tree = root.path().join("tree");
        let mut deep = tree.clone();
        for _ in 0..600 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "x").unwrap();
        fs::write(tree.join("one"), "x").unwrap();
        fs::hard_link(tree.join("one"), tree.join("d/two")).unwrap();
        fs::hard_link(&outside, tree.join("linked")).unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        let give = Passing { from: 0, to: OTHER, group: OTHER };
        give.give(&tree).unwrap();
        for name in ["", "d", "d/d/d", "one", "d/two", "link"] {
            assert_eq!(owner(&tree.join(name)), OTHER, "{name}");
        }
        assert_eq!(owner(&deep.join("file")), OTHER);
        assert_eq!(owner(&outside), 0, "a file outside was given away");
        // As an agent leaves it: closed, and linked to the outside by its own name.
        fs::set_permissions(tree.join("d"), fs::Permissions::from_mode(0o000)).unwrap();
        Passing { from: OTHER, to: 0, group: 0 }.take(&tree).unwrap();
        for name in ["", "d", "d/d/d", "one", "d/two", "link"] {
            assert_eq!(owner(&tree.join(name)), 0, "{name}");
        }
        assert_eq!(owner(&deep.join("file")), 0);
    }

    #[test]
    fn what_belongs_to_a_third_stays_theirs() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("only root can give files away");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("theirs"), "x").unwrap();
        std::os::unix::fs::chown(tree.join("theirs"), Some(OTHER + 1), None).unwrap();
        Passing { from: 0, to: OTHER, group: OTHER }.give(&tree).unwrap();
        assert_eq!((owner(&tree), owner(&tree.join("theirs"))), (OTHER, OTHER + 1));
        Passing { from: OTHER, to: 0, group: 0 }.take(&tree).unwrap();
        assert_eq!((owner(&tree), owner(&tree.join("theirs"))), (0, OTHER + 1));
    }
}
