//! Where folders wait to be deleted: moved there in one step, deleted by whoever comes first, and taken up
//! again by the next when that one dies.

use std::{ffi::CString, fs, io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock},
    io::Errno,
};

use super::unlink::{Deleted, delete_at, open_folder};

/// Deletes a file or a tree; fine when it is gone. What could not be deleted is part of the answer.
pub(crate) fn delete(path: &Path) -> io::Result<Deleted> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    match open_path(folder) {
        Ok(parent) => Ok(delete_at(&parent, name, folder)),
        Err(Errno::NOENT) => Ok(Deleted::default()),
        Err(error) => Err(error.into()),
    }
}

/// Deletes a tree in a trash, unless another process is at it: `None`.
pub(crate) fn clear(place: &Path) -> io::Result<Option<Deleted>> {
    match hold(place) {
        Hold::Busy => Ok(None),
        // Without a lock two may delete the same tree, which does no harm.
        Hold::Ours(_) | Hold::Impossible => delete(place).map(Some),
    }
}

/// Clears everything in a trash.
pub(crate) fn empty(trash: &Path, mut each: impl FnMut(Deleted)) -> io::Result<()> {
    let entries = match fs::read_dir(trash) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        if let Some(deleted) = clear(&entry?.path())? {
            each(deleted);
        }
    }
    Ok(())
}

/// Whether a folder could be taken.
#[derive(Debug)]
pub(crate) enum Hold {
    /// By us, as long as this is kept; a folder that moves takes the lock along.
    Ours(OwnedFd),
    /// By another process.
    Busy,
    /// By nobody: it is no folder, or the file system has no such locks.
    Impossible,
}

/// Takes a folder that is in the trash or about to move there: what nobody holds there is anybody's.
pub(crate) fn hold(folder: &Path) -> Hold {
    let open = || {
        let parent = open_path(folder.parent()?).ok()?;
        let name = CString::new(folder.file_name()?.as_encoded_bytes()).ok()?;
        open_folder(&parent, &name).ok()
    };
    let Some(fd) = open() else { return Hold::Impossible };
    match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Hold::Ours(fd),
        Err(Errno::WOULDBLOCK) => Hold::Busy,
        Err(_) => Hold::Impossible,
    }
}

fn open_path(folder: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Hold, clear, delete, empty, hold};

    #[test]
    fn what_somebody_deletes_is_left_to_him_and_what_a_dead_one_left_is_taken_up() {
        let place = tempfile::tempdir().unwrap();
        let trash = place.path().join("trash");
        for name in ["one", "two"] {
            fs::create_dir_all(trash.join(name).join("deep")).unwrap();
        }
        fs::write(trash.join("file"), "x").unwrap();
        let held = hold(&trash.join("one"));
        assert!(matches!(held, Hold::Ours(_)), "{held:?}");
        assert!(clear(&trash.join("one")).unwrap().is_none());
        let mut folders = 0;
        empty(&trash, |deleted| folders += deleted.folders).unwrap();
        assert_eq!(folders, 2);
        assert!(trash.join("one/deep").exists() && !trash.join("two").exists());
        drop(held);
        assert_eq!(clear(&trash.join("one")).unwrap().unwrap().folders, 2);
        assert_eq!(fs::read_dir(&trash).unwrap().count(), 0);
        assert_eq!(delete(&trash.join("gone/deeper")).unwrap().kept, 0);
        empty(&place.path().join("no-trash"), |_| ()).unwrap();
    }
}
