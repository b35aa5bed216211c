//! Trees that resist, and trees that lead elsewhere.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use super::{Deleted, delete_at};

fn delete(folder: &Path, name: &str) -> Deleted {
    let parent = fs::File::open(folder).unwrap();
    delete_at(&parent.into(), name.as_ref(), folder)
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn links_go_and_what_they_point_at_stays() {
    let place = tempfile::tempdir().unwrap();
    let outside = place.path().join("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    fs::write(outside.join("deep/file"), "precious").unwrap();
    let tree = place.path().join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    symlink(&outside, tree.join("a/link")).unwrap();
    symlink("../../outside/deep/file", tree.join("a/b/file")).unwrap();
    symlink("/", tree.join("root")).unwrap();
    fs::hard_link(outside.join("deep/file"), tree.join("hard")).unwrap();
    let deleted = delete(place.path(), "tree");
    assert_eq!((deleted.files, deleted.folders, deleted.kept), (4, 3, 0));
    assert!(!tree.exists());
    assert_eq!(fs::read_to_string(outside.join("deep/file")).unwrap(), "precious");
    // A link with the name of the tree is a link.
    symlink(&outside, &tree).unwrap();
    assert_eq!(delete(place.path(), "tree").files, 1);
    assert!(outside.join("deep/file").exists());
    assert_eq!(delete(place.path(), "tree").kept, 0, "it is gone already");
}

#[test]
fn folders_that_nobody_may_read_or_write_go_too() {
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    for (name, mode) in [("read-only", 0o555), ("closed", 0o000), ("no-search", 0o600)] {
        let folder = tree.join(name).join("inside");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), "x").unwrap();
        fs::write(tree.join(name).join("file"), "x").unwrap();
        chmod(&folder, mode);
        chmod(&tree.join(name), mode);
    }
    chmod(&tree, 0o555);
    let deleted = delete(place.path(), "tree");
    assert_eq!((deleted.files, deleted.kept), (6, 0), "{:?}", deleted.told);
    assert!(!tree.exists());
}

#[test]
fn a_tree_deeper_than_descriptors_go_is_deleted() {
    let place = tempfile::tempdir().unwrap();
    let mut fd: std::os::fd::OwnedFd = fs::File::open(place.path()).unwrap().into();
    for level in 0..3000 {
        let name = if level == 0 { "tree" } else { "d" };
        rustix::fs::mkdirat(&fd, name, rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY;
        fd = rustix::fs::openat(&fd, name, flags, rustix::fs::Mode::empty()).unwrap();
    }
    let deleted = delete(place.path(), "tree");
    assert_eq!((deleted.folders, deleted.kept), (3000, 0), "{:?}", deleted.told);
}

#[test]
fn a_folder_with_very_many_entries_is_emptied() {
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0..20_000 {
        fs::File::create(tree.join(format!("{number}"))).unwrap();
    }
    for number in 0..300 {
        fs::create_dir(tree.join(format!("folder-{number}"))).unwrap();
    }
    let deleted = delete(place.path(), "tree");
    assert_eq!((deleted.files, deleted.folders, deleted.kept), (20_000, 301, 0));
}
