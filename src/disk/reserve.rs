//! Some files on a volume that hold nothing but space: deleted when the volume is full, so that an
//! orderly end finds the bytes and the inodes it needs, and made again when there is room.
//!
//! Several workers may share the volume and the reserve; making and deleting it twice is harmless.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, OFlag, fallocate, open, openat},
    sys::stat::{Mode, fstat},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::Space;

/// The folder on the volume; no order or repository has a name like it.
const FOLDER: &str = ".reserve";
/// How many files: that many inodes are kept too.
const FILES: u64 = 16;
/// The most it takes, in bytes ...
const MOST: u64 = 32 << 20;
/// ... and the part of the volume it takes at most: one of so many.
const SHARE: u64 = 200;

/// The reserve of one volume. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reserve {
    folder: PathBuf,
}

impl Reserve {
    /// The reserve of the volume at `volume`.
    pub fn on(volume: &Path) -> Self {
        Self { folder: volume.join(FOLDER) }
    }

    /// How many bytes it takes of a volume.
    pub fn size_on(space: &Space) -> u64 {
        MOST.min(space.total_bytes / SHARE)
    }

    /// Makes what is missing. What cannot be made for want of space stays missing.
    pub fn fill(&self, space: &Space) -> io::Result<()> {
        let each = i64::try_from(Self::size_on(space) / FILES).unwrap_or_default();
        if each == 0 {
            return Ok(());
        }
        match std::fs::create_dir(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let folder = self.open()?;
        for number in 0..FILES {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let mode = Mode::from_bits_truncate(0o600);
            let file = openat(&folder, number.to_string().as_str(), flags, mode)?;
            if fstat(&file)?.st_size < each {
                match fallocate(file.as_fd(), FallocateFlags::empty(), 0, each) {
                    // Without it there is still the inode.
                    Ok(()) | Err(Errno::EOPNOTSUPP) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Gives the space back; answers whether there was any.
    pub fn release(&self) -> bool {
        let Ok(folder) = self.open() else { return false };
        (0..FILES).fold(false, |released, number| {
            let name = number.to_string();
            unlinkat(&folder, name.as_str(), UnlinkatFlags::NoRemoveDir).is_ok() || released
        })
    }

    fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(open(&self.folder, flags, Mode::empty())?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::{FILES, Reserve, Space};

    #[test]
    fn a_reserve_takes_space_and_gives_it_back() {
        let volume = tempfile::tempdir().unwrap();
        let space = Space { total_bytes: 64 << 20, ..Space::default() };
        let reserve = Reserve::on(volume.path());
        assert!(!reserve.release(), "there is none yet");
        for _ in 0..2 {
            reserve.fill(&space).unwrap();
            let files = std::fs::read_dir(volume.path().join(".reserve")).unwrap();
            let taken = files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512);
            let taken: Vec<u64> = taken.collect();
            assert_eq!(taken.len() as u64, FILES);
            assert!(taken.iter().sum::<u64>() >= Reserve::size_on(&space) / FILES * FILES);
        }
        assert!(reserve.release() && !reserve.release());
        assert!(std::fs::read_dir(volume.path().join(".reserve")).unwrap().next().is_none());
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let (volume, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(elsewhere.path().join("0"), "precious").unwrap();
        symlink(elsewhere.path(), volume.path().join(".reserve")).unwrap();
        let reserve = Reserve::on(volume.path());
        let space = Space { total_bytes: 64 << 20, ..Space::default() };
        assert!(reserve.fill(&space).is_err() && !reserve.release());
        assert_eq!(std::fs::read(elsewhere.path().join("0")).unwrap(), b"precious");
    }
}
