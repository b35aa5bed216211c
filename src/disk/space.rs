//! What a file system says about its free space.

use std::{fmt, io, path::Path};

use nix::sys::statvfs::statvfs;

/// Below this a volume is taken for full when something on it failed without saying why, in bytes.
const NOTHING: u64 = 64 * 1024;

/// The space of one file system, as an unprivileged user may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Space {
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes that can still be written.
    pub free_bytes: u64,
    /// Files and folders in all; 0 where the file system has no such limit.
    pub total_inodes: u64,
    /// Files and folders that can still be made.
    pub free_inodes: u64,
}

impl Space {
    /// Whether next to nothing can be written.
    pub fn is_full(&self) -> bool {
        let no_inode = self.total_inodes > 0 && self.free_inodes == 0;
        self.total_bytes > 0 && self.free_bytes < NOTHING.min(self.total_bytes / 100) || no_inode
    }
}

/// Asks for the free space; passed in, so that tests can have any.
pub trait DiskSpace: fmt::Debug + Send + Sync {
    /// The space of the file system that holds `folder`. May block for as long as that does.
    fn space(&self, folder: &Path) -> io::Result<Space>;
}

/// What the kernel says.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

impl DiskSpace for SystemDisk {
    fn space(&self, folder: &Path) -> io::Result<Space> {
        let found = statvfs(folder)?;
        let unit = found.fragment_size();
        Ok(Space {
            total_bytes: found.blocks().saturating_mul(unit),
            free_bytes: found.blocks_available().saturating_mul(unit),
            total_inodes: found.files(),
            free_inodes: found.files_available(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{DiskSpace, Space, SystemDisk};

    #[test]
    fn a_volume_is_full_without_bytes_or_without_inodes() {
        let space = |free_bytes, free_inodes, total_inodes| Space {
            total_bytes: 1 << 30,
            free_bytes,
            total_inodes,
            free_inodes,
        };
        assert!(space(4096, 9, 10).is_full());
        assert!(space(1 << 20, 0, 10).is_full());
        assert!(!space(1 << 20, 1, 10).is_full());
        assert!(!space(1 << 20, 0, 0).is_full(), "btrfs counts no inodes");
        assert!(!Space::default().is_full(), "it says nothing");
    }

    #[test]
    fn the_kernel_says_something_about_every_folder() {
        let folder = tempfile::tempdir().unwrap();
        let space = SystemDisk.space(folder.path()).unwrap();
        assert!(space.total_bytes >= space.free_bytes && space.total_bytes > 0, "{space:?}");
        assert!(SystemDisk.space(&folder.path().join("none")).is_err());
    }
}
