//! The volume of the sandboxes, which runs out of space now and then.

use std::{fs, io::ErrorKind};

pub use crate::small_volume::{PATH, Volume};

/// Its size, as an option of a tmpfs.
pub const OPTIONS: &str = "size=512m";

/// The volume can be filled and emptied, and is nobody else's.
pub async fn check() {
    let folder = tempfile::tempdir().unwrap();
    let volume = Volume::mount(&folder.path().join("volume"), OPTIONS).await.unwrap();
    let write = || fs::write(volume.outside("file"), vec![1; 100_000]);
    write().unwrap();
    volume.fill(0).unwrap();
    fs::remove_file(volume.outside("file")).unwrap();
    volume.free().unwrap();
    volume.fill(0).unwrap();
    assert_eq!(write().unwrap_err().kind(), ErrorKind::StorageFull);
    volume.free().unwrap();
    write().unwrap();
    assert!(!volume.folder.join("file").exists(), "mounted in its own namespace only");
    let mut within = volume.command();
    within.env("PATH", PATH).arg("cat").arg(volume.folder.join("file"));
    let read = within.output().await.unwrap();
    assert_eq!(read.stdout.len(), 100_000, "{}", String::from_utf8_lossy(&read.stderr));
}
