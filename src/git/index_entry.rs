//! What the index knows of a file: how it was when it was read.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

use git2::{Index, IndexEntry, IndexTime, Oid, Tree};

use crate::disk::{About, Kind};

pub(super) const LINK: u32 = 0o120_000;
pub(super) const SUBMODULE: u32 = 0o160_000;
pub(super) const EXECUTABLE: u32 = 0o100_755;
pub(super) const PLAIN: u32 = 0o100_644;

/// What git records of a file besides its content.
fn mode(file: &About) -> u32 {
    match file.kind {
        Kind::Link => LINK,
        _ if file.mode & 0o100 != 0 => EXECUTABLE,
        _ => PLAIN,
    }
}

/// The entry of a file whose content is the object `id`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the index keeps the low 32 bits of each number"
)]
pub(super) fn of(path: Vec<u8>, id: Oid, file: &About) -> IndexEntry {
    let time = |(seconds, nanoseconds): (i64, u32)| IndexTime::new(seconds as i32, nanoseconds);
    IndexEntry {
        ctime: time(file.changed),
        mtime: time(file.modified),
        dev: rustix::fs::makedev(file.device.0, file.device.1) as u32,
        ino: file.inode as u32,
        mode: mode(file),
        uid: file.user,
        gid: file.group,
        file_size: file.size as u32,
        id,
        flags: 0,
        flags_extended: 0,
        path,
    }
}

/// The mode that an index takes for one of a tree.
pub(super) const fn known_mode(mode: u32) -> u32 {
    match mode {
        LINK | SUBMODULE => mode,
        mode if mode & 0o100 != 0 => EXECUTABLE,
        _ => PLAIN,
    }
}

/// The files of a tree as an index has them. A tree may hold any number as a mode, to ask a difference for which
/// is a panic, and names in any order, among which none is found by its path.
pub(super) fn files_of(tree: &Tree<'_>) -> Result<Index, git2::Error> {
    let mut files = Index::new()?;
    files.read_tree(tree)?;
    Ok(files)
}

/// The entry of an object that no file was read for: the next look reads it.
pub(super) fn unseen(path: Vec<u8>, id: Oid, mode: u32) -> IndexEntry {
    let never = IndexTime::new(0, 0);
    IndexEntry {
        ctime: never,
        mtime: never,
        dev: 0,
        ino: 0,
        mode,
        uid: 0,
        gid: 0,
        file_size: 0,
        id,
        flags: 0,
        flags_extended: 0,
        path,
    }
}

/// Whether a file is the one that was read, by what its owner cannot forge: the change time.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the index keeps the low 32 bits of each number"
)]
pub(super) fn is_unchanged(known: &IndexEntry, file: &About, index: Option<&Metadata>) -> bool {
    let time = |(seconds, nanoseconds): (i64, u32)| (seconds as i32, nanoseconds);
    let modified = time(file.modified);
    // Written in the same tick as the index: a later change could carry the same times.
    let settled =
        index.is_some_and(|index| modified < (index.mtime() as i32, index.mtime_nsec() as u32));
    settled
        && known.mode == mode(file)
        && known.file_size == file.size as u32
        && known.ino == file.inode as u32
        && (known.mtime.seconds(), known.mtime.nanoseconds()) == modified
        && (known.ctime.seconds(), known.ctime.nanoseconds()) == time(file.changed)
}
