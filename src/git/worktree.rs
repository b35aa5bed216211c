//! Turns the agent's files into a tree, trusting nothing that the agent wrote about them.
//!
//! The checkout's own `.git` is never opened: the index, the configuration and the objects are
//! those of the trusted repository. libgit2 runs no hooks, filters or file system monitors, links
//! are stored and never followed, and a repository inside the checkout is left out.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, Metadata},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use git2::{Config, Index, IndexEntry, IndexTime, Oid, Repository};

use super::{
    GitError, Parts, Sandbox, error, lfs, lfs_content, ports_file, sandbox::is_folder, sparse::Cone,
};

/// The most a commit may add or change, in MiB. Far above what a forge takes in one file.
const LIMIT_MIB: u64 = 2048;
const LINK: u32 = 0o120_000;
pub(super) const SUBMODULE: u32 = 0o160_000;
pub(super) const EXECUTABLE: u32 = 0o100_755;
pub(super) const PLAIN: u32 = 0o100_644;

/// The trusted repository with the agent's files as its work tree.
pub(super) struct Worktree {
    pub(super) repository: Repository,
    checkout: PathBuf,
    parts: Parts,
}

/// What a walk over the checkout found.
#[derive(Default)]
struct Found {
    present: HashSet<Vec<u8>>,
    changed: Vec<PathBuf>,
    bytes: u64,
}

impl Worktree {
    /// Opens the trusted repository of a sandbox. The caller holds the lock of the order.
    pub(super) fn open(sandbox: &Sandbox) -> Result<Self, GitError> {
        if !is_folder(&sandbox.root) || !is_folder(&sandbox.checkout) {
            return Err(GitError::NoCheckout { path: sandbox.checkout.clone() });
        }
        let open = || {
            let repository = Repository::open_bare(&sandbox.trusted)?;
            // Only this file: no settings of the user or the system decide what is committed.
            repository.set_config(&Config::open(&sandbox.trusted.join("config"))?)?;
            repository.set_workdir(&sandbox.checkout, false)?;
            Ok(repository)
        };
        let repository = open().map_err(GitError::library("open the trusted repository"))?;
        let (checkout, parts) = (sandbox.checkout.clone(), sandbox.parts.clone());
        Ok(Self { repository, checkout, parts })
    }

    /// Stores the agent's files as objects and returns their tree.
    pub(super) fn stage(&self, head: &git2::Commit<'_>) -> Result<Oid, GitError> {
        // Left by a process that was killed; the lock of the order says that it is gone.
        let _ = fs::remove_file(self.repository.path().join("index.lock"));
        let library = || GitError::library("stage the files of the agent");
        let mut index = self.repository.index().map_err(library())?;
        if index.is_empty() || index.has_conflicts() {
            let tree = head.tree().map_err(library())?;
            index.read_tree(&tree).map_err(library())?;
        }
        let tracked: Vec<IndexEntry> = index.iter().collect();
        let found = self.walk(&index, &tracked)?;
        if found.bytes > LIMIT_MIB << 20 {
            let found_mib = found.bytes >> 20;
            return Err(GitError::TooMuch { found_mib, limit_mib: LIMIT_MIB });
        }
        // What was not checked out was not removed.
        let cone = Cone::of(&self.parts.sparse);
        let is_here = |entry: &&IndexEntry| entry.mode != SUBMODULE && cone.holds(&entry.path);
        for entry in tracked.iter().filter(is_here) {
            if !found.present.contains(&entry.path) {
                index.remove(Path::new(OsStr::from_bytes(&entry.path)), 0).map_err(library())?;
            }
        }
        for path in &found.changed {
            match self.add(&mut index, path)? {
                Ok(()) => {}
                // To leave it out would lose it: the next try may find room.
                Err(error) if error::library_is_full(&error) => return Err(library()(error)),
                // Names that git itself refuses, and files that vanished or may not be read.
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "file is left out of the commit");
                    if index.get_path(path, 0).is_some() {
                        return Err(library()(error));
                    }
                }
            }
        }
        let tree = index.write_tree().map_err(library())?;
        index.write().map_err(library())?;
        Ok(tree)
    }

    /// Has the next staging read the files again whose contents stand in the index although Git LFS keeps
    /// them: a bundle brought them along.
    pub(super) fn forget_contents(&self) -> Result<(), GitError> {
        let forget = || {
            let mut index = self.repository.index()?;
            let entries: Vec<IndexEntry> = index.iter().collect();
            for entry in entries.iter().filter(|entry| matches!(entry.mode, PLAIN | EXECUTABLE)) {
                let path = Path::new(OsStr::from_bytes(&entry.path));
                if lfs::is_kept(&self.repository, path)
                    && lfs::pointer_at(&self.repository, entry.id).is_none()
                {
                    let (never, path) = (IndexTime::new(0, 0), entry.path.clone());
                    let (ctime, mtime) = (never, never);
                    index.add(&IndexEntry { ctime, mtime, file_size: 0, path, ..*entry })?;
                }
            }
            index.write()
        };
        forget().map_err(GitError::library("read the files of Git LFS anew"))
    }

    /// Adds a file to the index, by its pointer when Git LFS keeps its content.
    fn add(&self, index: &mut Index, path: &Path) -> Result<Result<(), git2::Error>, GitError> {
        let file = self.checkout.join(path);
        let is_plain = || fs::symlink_metadata(&file).is_ok_and(|file| file.is_file());
        if !self.parts.lfs || !is_plain() || !lfs::is_kept(&self.repository, path) {
            return Ok(index.add_path(path));
        }
        let taken = lfs_content::take(&file, self.repository.path());
        let Some((pointer, metadata)) =
            taken.map_err(GitError::file("take over the content of", &file))?
        else {
            return Ok(index.add_path(path));
        };
        let blob = self.repository.blob(pointer.text().as_bytes());
        Ok(blob.and_then(|id| index.add(&entry_for(path, id, &metadata))))
    }

    fn walk(&self, index: &Index, tracked: &[IndexEntry]) -> Result<Found, GitError> {
        let mut folders = folders_of(tracked);
        folders.insert(Vec::new());
        let written = index.path().and_then(|path| fs::metadata(path).ok());
        let mut found = Found::default();
        let mut pending = vec![PathBuf::new()];
        require_plain_rules(&self.checkout)?;
        let keeps_ports_file = ports_file::is_tracked(index);
        while let Some(folder) = pending.pop() {
            let here = self.checkout.join(&folder);
            let entries = match fs::read_dir(&here) {
                Ok(entries) => entries,
                // What cannot be read can be left out, unless that would look like a removal.
                Err(error) if !folders.contains(folder.as_os_str().as_bytes()) => {
                    tracing::warn!(path = %here.display(), %error, "folder is left out");
                    continue;
                }
                Err(error) => return Err(GitError::file("list the folder", &here)(error)),
            };
            for entry in entries {
                let entry = entry.map_err(GitError::file("list the folder", &here))?;
                let path = folder.join(entry.file_name());
                let Ok(metadata) = entry.metadata() else { continue };
                if is_git_folder(&entry.file_name()) {
                    continue;
                }
                // Ours, and nothing that the agent does to it makes it a part of the work.
                if path.as_os_str() == ports_file::NAME && !keeps_ports_file {
                    continue;
                }
                let known = index.get_path(&path, 0);
                if metadata.is_dir() {
                    if known.is_some_and(|known| known.mode == SUBMODULE) {
                        continue;
                    }
                    require_plain_rules(&entry.path())?;
                    let is_tracked = folders.contains(path.as_os_str().as_bytes());
                    let embedded = || fs::symlink_metadata(entry.path().join(".git")).is_ok();
                    if is_tracked || !(embedded() || self.is_ignored(&path, true)) {
                        pending.push(path);
                    }
                } else if metadata.is_file() || metadata.is_symlink() {
                    match known {
                        Some(known) if is_unchanged(&known, &metadata, written.as_ref()) => {}
                        None if self.is_ignored(&path, false) => continue,
                        _ => {
                            found.bytes += metadata.len();
                            found.changed.push(path.clone());
                        }
                    }
                    found.present.insert(path.into_os_string().as_bytes().to_vec());
                }
            }
        }
        Ok(found)
    }

    fn is_ignored(&self, path: &Path, folder: bool) -> bool {
        let mut path = path.as_os_str().to_owned();
        if folder {
            path.push("/");
        }
        self.repository.is_path_ignored(Path::new(&path)).unwrap_or(false)
    }
}

/// libgit2 opens these files in every folder, and opening a pipe waits for ever.
fn require_plain_rules(folder: &Path) -> Result<(), GitError> {
    for name in [".gitignore", ".gitattributes"] {
        let path = folder.join(name);
        let plain = fs::metadata(&path).is_ok_and(|file| file.is_file() || file.is_dir());
        if !plain && path.exists() {
            let problem = format!("{} is a pipe or a device: remove it", path.display());
            return Err(GitError::Unusable(problem));
        }
    }
    Ok(())
}

/// Every folder that has a tracked file somewhere below it.
fn folders_of(tracked: &[IndexEntry]) -> HashSet<Vec<u8>> {
    let mut folders = HashSet::new();
    for entry in tracked {
        let mut path = entry.path.as_slice();
        while let Some(at) = path.iter().rposition(|byte| *byte == b'/') {
            path = &path[..at];
            if !folders.insert(path.to_vec()) {
                break;
            }
        }
    }
    folders
}

/// Whether git would take the name for its own folder on some file system: on Windows what follows a
/// colon and dots and blanks at the end do not count, on a Mac some invisible letters.
fn is_git_folder(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let seen = name.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    let invisible = |c: &char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let seen: String = seen.chars().filter(|c| !invisible(c)).collect();
    seen.eq_ignore_ascii_case(".git") || seen.eq_ignore_ascii_case("git~1")
}

/// What the index knows of a file whose content is not the one of its object.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the index keeps the low 32 bits of each number"
)]
fn entry_for(path: &Path, id: Oid, file: &Metadata) -> IndexEntry {
    let time = |seconds: i64, nanoseconds: i64| IndexTime::new(seconds as i32, nanoseconds as u32);
    IndexEntry {
        ctime: time(file.ctime(), file.ctime_nsec()),
        mtime: time(file.mtime(), file.mtime_nsec()),
        dev: file.dev() as u32,
        ino: file.ino() as u32,
        mode: if file.mode() & 0o100 == 0 { PLAIN } else { EXECUTABLE },
        uid: file.uid(),
        gid: file.gid(),
        file_size: file.size() as u32,
        id,
        flags: 0,
        flags_extended: 0,
        path: path.as_os_str().as_bytes().to_vec(),
    }
}

/// Whether a file is the one that was staged, by what its owner cannot forge: the change time.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the index keeps the low 32 bits of each number"
)]
fn is_unchanged(known: &IndexEntry, file: &Metadata, index: Option<&Metadata>) -> bool {
    let time = |seconds: i64, nanoseconds: i64| (seconds as i32, nanoseconds as u32);
    let mode = match file {
        file if file.is_symlink() => LINK,
        file if file.mode() & 0o100 != 0 => EXECUTABLE,
        _ => PLAIN,
    };
    let modified = time(file.mtime(), file.mtime_nsec());
    // Written in the same tick as the index: a later change could carry the same times.
    let settled = index.is_some_and(|index| modified < time(index.mtime(), index.mtime_nsec()));
    settled
        && known.mode == mode
        && known.file_size == file.size() as u32
        && known.ino == file.ino() as u32
        && (known.mtime.seconds(), known.mtime.nanoseconds()) == modified
        && (known.ctime.seconds(), known.ctime.nanoseconds())
            == time(file.ctime(), file.ctime_nsec())
}

#[cfg(test)]
mod tests {
    use super::is_git_folder;

    #[test]
    fn a_git_folder_is_known_in_every_disguise() {
        for name in
            [".git", ".GIT", "git~1", ".git ", ".git...", ".git::$INDEX_ALLOCATION", ".g\u{200c}it"]
        {
            assert!(is_git_folder(name.as_ref()), "{name:?}");
        }
        for name in [".gitignore", "git", ".github", "a.git", ".git2", "git~2"] {
            assert!(!is_git_folder(name.as_ref()), "{name:?}");
        }
    }
}
