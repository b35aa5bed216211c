//! Puts files into the checkout of an agent and takes files out of it, relative to descriptors of its folders: a
//! link that the agent left leads nowhere.

use std::{
    ffi::OsStr,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path},
};

use rustix::{
    fs::{self, AtFlags, Mode},
    io::Errno,
};

use crate::disk::{
    Beneath,
    beneath::{FOLDER, open_at},
    delete_at,
};

/// A folder whose content somebody else has made.
pub(super) struct Place(Beneath);

impl Place {
    /// Puts files into a folder, and takes them out of it.
    pub(super) fn within(folder: Beneath) -> Self {
        Self(folder)
    }

    fn top(&self) -> io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }

    /// Moves a file from a folder of ours on the same volume here, over what has its name. Links and files in
    /// the place of its folders are removed; a folder in its own place is an error.
    pub(super) fn put(&self, from: &Path, path: &Path) -> io::Result<()> {
        let (folder, name) = split(path)?;
        let mut at = self.top()?;
        for part in parts(folder)? {
            at = enter_or_make(&at, part)?;
        }
        Ok(fs::renameat(fs::CWD, from, &at, name)?)
    }

    /// Removes a folder that stands in the place of a file, with what is in it; anything else stays.
    pub(super) fn clear(&self, path: &Path) -> io::Result<()> {
        let (folder, name) = split(path)?;
        let mut at = self.top()?;
        for part in parts(folder)? {
            match open_at(&at, Path::new(part), FOLDER) {
                Ok(next) => at = next,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        match open_at(&at, Path::new(name), FOLDER) {
            Ok(_) | Err(Errno::ACCESS) => {}
            Err(_) => return Ok(()),
        }
        let deleted = delete_at(&at, name, path);
        deleted.told.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Removes a file, and the folders above it that are empty then; fine when it is gone.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let (folder, name) = split(path)?;
        let mut open = vec![self.top()?];
        let parts = parts(folder)?;
        for part in &parts {
            let Some(at) = open.last() else { break };
            match open_at(at, Path::new(part), FOLDER) {
                Ok(next) => open.push(next),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(at) = open.last() {
            match fs::unlinkat(at, name, AtFlags::empty()) {
                // What stands there instead is not the file.
                Ok(()) | Err(Errno::NOENT | Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for (above, part) in open.iter().zip(&parts).rev() {
            if fs::unlinkat(above, *part, AtFlags::REMOVEDIR).is_err() {
                break;
            }
        }
        Ok(())
    }
}

fn enter_or_make(at: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let open = || open_at(at, Path::new(name), FOLDER);
    match open() {
        Err(Errno::NOENT) => {}
        Err(Errno::NOTDIR | Errno::LOOP) => fs::unlinkat(at, name, AtFlags::empty())?,
        other => return Ok(other?),
    }
    fs::mkdirat(at, name, Mode::from_raw_mode(0o777))?;
    Ok(open()?)
}

fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    match (path.parent(), path.components().next_back()) {
        (Some(folder), Some(Component::Normal(name))) => Ok((folder, name)),
        _ => Err(odd(path)),
    }
}

fn parts(folder: &Path) -> io::Result<Vec<&OsStr>> {
    let part = |part| match part {
        Component::Normal(name) => Ok(name),
        _ => Err(odd(folder)),
    };
    folder.components().map(part).collect()
}

fn odd(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no path inside", path.display()))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::Place;
    use crate::disk::Beneath;

    #[test]
    fn files_come_and_go_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["checkout", "outside", "ours"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("outside/precious"), "1").unwrap();
        symlink(at("outside"), at("checkout/link")).unwrap();
        symlink(at("outside/precious"), at("checkout/file")).unwrap();
        let place = Place::within(Beneath::open(&at("checkout")).unwrap());
        for path in ["link/precious", "file", "a/b/c"] {
            fs::write(at("ours/new"), path).unwrap();
            place.put(&at("ours/new"), Path::new(path)).unwrap();
            assert_eq!(fs::read_to_string(at("checkout").join(path)).unwrap(), path);
        }
        assert_eq!(fs::read_to_string(at("outside/precious")).unwrap(), "1");
        fs::write(at("checkout/a/kept"), "1").unwrap();
        for path in ["a/b/c", "a/b/c", "link/precious", "nowhere/x"] {
            place.remove(Path::new(path)).unwrap();
        }
        assert!(at("checkout/a/kept").exists() && !at("checkout/a/b").exists());
        assert!(!at("checkout/link").exists());
        symlink(at("outside"), at("checkout/link")).unwrap();
        place.remove(Path::new("link/precious")).unwrap();
        assert!(at("outside/precious").exists());
        for path in ["../x", "/etc/x", ""] {
            assert!(place.put(&at("ours/new"), Path::new(path)).is_err(), "{path:?}");
        }
    }
}
