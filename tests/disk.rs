//! What is written on a real volume without space.

#[path = "support/small_volume.rs"]
mod small_volume;

use std::{fs, io::ErrorKind};

use archon_awo::disk::{DiskSpace, Reserve, Space, SystemDisk, is_full, write_whole};
use small_volume::{PATH, Volume};

#[tokio::test]
async fn the_reserve_is_for_what_must_be_written_when_there_is_no_space() {
    let folder = tempfile::tempdir().unwrap();
    let volume = Volume::mount(&folder.path().join("volume"), "size=16m").await.unwrap();
    let root = volume.outside("");
    let space = || SystemDisk.space(&root).unwrap();
    let reserve = Reserve::on(&root);
    reserve.fill(&space()).unwrap();
    let file = root.join("metadata.json");
    write_whole(&file, b"old", &reserve).await.unwrap();
    volume.fill(0).unwrap();
    assert!(space().is_full());

    let new = vec![b'n'; 40 << 10];
    write_whole(&file, &new, &reserve).await.unwrap();
    assert_eq!(fs::read(&file).unwrap(), new);
    assert_eq!(fs::read_dir(root.join(".reserve")).unwrap().count(), 0);

    // There is none left: the old content stays, and no part of the new one.
    volume.fill(0).unwrap();
    let newer = vec![b'r'; 80 << 10];
    let refused = write_whole(&file, &newer, &reserve).await.unwrap_err();
    assert_eq!((refused.kind(), is_full(&refused)), (ErrorKind::StorageFull, true));
    assert_eq!(fs::read(&file).unwrap(), new);
    assert!(!root.join("metadata.json.part").exists());

    volume.free().unwrap();
    reserve.fill(&space()).unwrap();
    write_whole(&file, &newer, &reserve).await.unwrap();
    assert_eq!(fs::read_dir(root.join(".reserve")).unwrap().count(), 16);
    let mut within = volume.command();
    within.env("PATH", PATH).args(["stat", "-c", "%s"]).arg(volume.folder.join("metadata.json"));
    assert_eq!(within.output().await.unwrap().stdout, b"81920\n");
}

#[tokio::test]
async fn the_reserve_keeps_inodes_too() {
    let folder = tempfile::tempdir().unwrap();
    let options = "size=16m,nr_inodes=64";
    let volume = Volume::mount(&folder.path().join("volume"), options).await.unwrap();
    let root = volume.outside("");
    let reserve = Reserve::on(&root);
    let space: Space = SystemDisk.space(&root).unwrap();
    reserve.fill(&space).unwrap();
    let mut made = 0;
    while fs::File::create(root.join(format!("file-{made}"))).is_ok() {
        made += 1;
        assert!(made < 64);
    }
    assert!(SystemDisk.space(&root).unwrap().is_full());
    write_whole(&root.join("end"), b"of a run", &reserve).await.unwrap();
}
