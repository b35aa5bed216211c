//! Deletes a tree with several hands, relative to descriptors of its folders: no link leads outside, no
//! mount is crossed, and what cannot be deleted is told and left.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    mem::MaybeUninit,
    num::NonZeroUsize,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, RawDir},
    io::Errno,
};

use super::beneath::open_at;

/// More hands than this fight over the journal of the file system.
const HANDS: usize = 4;
/// Each open folder below the top costs a descriptor, so what lies deeper is moved up first.
const DEPTH: usize = 40;
/// Entries of a folder that are taken at once; in the order of their inodes they go faster.
const BATCH: usize = 8192;
/// How often a folder is read again into which something was put while it was emptied.
const ROUNDS: usize = 4;
/// Failures that are told one by one.
const TOLD: usize = 20;

/// What became of a tree.
#[derive(Debug, Default)]
pub(crate) struct Deleted {
    /// Files, links and other entries that are gone.
    pub(crate) files: u64,
    /// Folders that are gone.
    pub(crate) folders: u64,
    /// Entries that could not be deleted; the folders above them are not counted.
    pub(crate) kept: u64,
    /// The first of these, and why.
    pub(crate) told: Vec<(PathBuf, io::Error)>,
}

/// Deletes what has the name `name` in `parent`, a folder with the path `place`; fine when it is gone.
pub(crate) fn delete_at(parent: &OwnedFd, name: &OsStr, place: &Path) -> Deleted {
    let Ok(name) = CString::new(name.as_bytes()) else { return Deleted::default() };
    let top = match parent.try_clone() {
        Ok(fd) => Arc::new(Folder::new(fd, None, CString::default(), 0)),
        Err(error) => {
            return Deleted { kept: 1, told: vec![(place.into(), error)], ..Deleted::default() };
        }
    };
    let crew = Crew::new(place);
    match crew.unlink(&top, &name) {
        Err(Errno::ISDIR | Errno::PERM) => {
            top.open.fetch_add(1, Ordering::SeqCst);
            crew.lock().tasks.push(Task { parent: Arc::clone(&top), name });
            let hands =
                std::thread::available_parallelism().map_or(2, NonZeroUsize::get).min(HANDS);
            std::thread::scope(|scope| {
                for _ in 1..hands {
                    scope.spawn(|| crew.work());
                }
                crew.work();
            });
        }
        Err(error) => crew.keep(&top, &name, error),
        Ok(()) => {}
    }
    crew.report()
}

/// A folder that is being emptied.
#[derive(Debug)]
struct Folder {
    fd: OwnedFd,
    parent: Option<Arc<Folder>>,
    name: CString,
    depth: usize,
    /// Who still works in it: its own reading, and each folder inside.
    open: AtomicUsize,
    /// Whether something inside stays, so that it cannot go either.
    kept: AtomicBool,
}

impl Folder {
    fn new(fd: OwnedFd, parent: Option<Arc<Self>>, name: CString, depth: usize) -> Self {
        let (open, kept) = (AtomicUsize::new(1), AtomicBool::new(false));
        Self { fd, parent, name, depth, open, kept }
    }
}

/// A folder that nobody has opened yet.
struct Task {
    parent: Arc<Folder>,
    name: CString,
}

#[derive(Default)]
struct Tasks {
    tasks: Vec<Task>,
    busy: usize,
}

struct Crew<'a> {
    place: &'a Path,
    state: Mutex<Tasks>,
    wake: Condvar,
    files: AtomicU64,
    folders: AtomicU64,
    kept: AtomicU64,
    told: Mutex<Vec<(PathBuf, io::Error)>>,
}

impl<'a> Crew<'a> {
    fn new(place: &'a Path) -> Self {
        let (files, folders, kept) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let (state, wake, told) = (Mutex::default(), Condvar::new(), Mutex::default());
        Self { place, state, wake, files, folders, kept, told }
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(self) -> Deleted {
        Deleted {
            files: self.files.into_inner(),
            folders: self.folders.into_inner(),
            kept: self.kept.into_inner(),
            told: self.told.into_inner().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Takes folders until there is none left and nobody can bring a new one.
    fn work(&self) {
        let mut buffer = Vec::with_capacity(64 << 10);
        loop {
            let task = {
                let mut state = self.lock();
                loop {
                    if let Some(task) = state.tasks.pop() {
                        state.busy += 1;
                        break task;
                    }
                    if state.busy == 0 {
                        return;
                    }
                    state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            self.take(task, buffer.spare_capacity_mut());
            self.lock().busy -= 1;
            self.wake.notify_all();
        }
    }

    fn take(&self, task: Task, buffer: &mut [MaybeUninit<u8>]) {
        let Task { parent, name } = task;
        match open_folder(&parent.fd, &name) {
            Ok(fd) => {
                let depth = parent.depth + 1;
                let folder = Arc::new(Folder::new(fd, Some(parent), name, depth));
                self.empty(&folder, buffer);
                self.leave(folder, buffer);
            }
            Err(error) => {
                if error != Errno::NOENT {
                    self.keep(&parent, &name, error);
                }
                self.leave(parent, buffer);
            }
        }
    }

    /// Deletes what lies in a folder; folders inside become tasks.
    fn empty(&self, folder: &Arc<Folder>, buffer: &mut [MaybeUninit<u8>]) {
        if let Err(error) = fs::seek(&folder.fd, fs::SeekFrom::Start(0)) {
            return self.keep(folder, c".", error);
        }
        let mut entries = RawDir::new(&folder.fd, buffer);
        let mut more = true;
        while more {
            let mut batch: Vec<(u64, FileType, CString)> = Vec::new();
            while batch.len() < BATCH {
                match entries.next() {
                    Some(Ok(entry)) => {
                        let name = entry.file_name();
                        if name != c"." && name != c".." {
                            batch.push((entry.ino(), entry.file_type(), name.to_owned()));
                        }
                    }
                    Some(Err(Errno::INTR)) => {}
                    Some(Err(error)) => {
                        self.keep(folder, c".", error);
                        more = false;
                        break;
                    }
                    None => {
                        more = false;
                        break;
                    }
                }
            }
            batch.sort_unstable_by_key(|(inode, ..)| *inode);
            let mut inside = Vec::new();
            for (_, kind, name) in batch {
                if kind == FileType::Directory {
                    inside.push(name);
                    continue;
                }
                match self.unlink(folder, &name) {
                    Ok(()) => {}
                    // The file system does not say what entries are, or it has changed since.
                    Err(Errno::ISDIR) => inside.push(name),
                    Err(Errno::PERM) if kind == FileType::Unknown => inside.push(name),
                    Err(error) => self.keep(folder, &name, error),
                }
            }
            self.add(folder, inside);
        }
    }

    fn add(&self, folder: &Arc<Folder>, names: Vec<CString>) {
        if names.is_empty() {
            return;
        }
        let tasks: Vec<Task> = names.into_iter().map(|name| task(folder, name)).collect();
        self.lock().tasks.extend(tasks);
        self.wake.notify_all();
    }

    /// One piece of work in a folder is done; after the last one the folder itself goes.
    fn leave(&self, mut folder: Arc<Folder>, buffer: &mut [MaybeUninit<u8>]) {
        let mut round = 0;
        while folder.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            let Some(parent) = folder.parent.clone() else { return };
            if folder.kept.load(Ordering::SeqCst) {
                parent.kept.store(true, Ordering::SeqCst);
            } else {
                match remove(&parent, &folder.name) {
                    Ok(()) => {
                        self.folders.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(Errno::NOENT) => {}
                    Err(Errno::NOTEMPTY | Errno::EXIST) if round < ROUNDS => {
                        round += 1;
                        folder.open.fetch_add(1, Ordering::SeqCst);
                        self.empty(&folder, buffer);
                        continue;
                    }
                    Err(error) => self.keep(&parent, &folder.name, error),
                }
            }
            round = 0;
            folder = parent;
        }
    }

    fn unlink(&self, folder: &Folder, name: &CStr) -> Result<(), Errno> {
        let unlink = || fs::unlinkat(&folder.fd, name, AtFlags::empty());
        match or_open_up(folder, unlink) {
            Ok(()) => {
                self.files.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn keep(&self, folder: &Folder, name: &CStr, error: Errno) {
        folder.kept.store(true, Ordering::SeqCst);
        self.kept.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < TOLD {
            let mut names = vec![name];
            let mut above = Some(folder);
            while let Some(folder) = above {
                names.push(&folder.name);
                above = folder.parent.as_deref();
            }
            let mut path = self.place.to_owned();
            let parts = names.iter().rev().map(|name| OsStr::from_bytes(name.to_bytes()));
            path.extend(parts.filter(|part| !part.is_empty() && *part != "."));
            told.push((path, error.into()));
        }
    }
}

/// A folder inside another; one that lies deep is moved to the top of the tree first.
fn task(folder: &Arc<Folder>, name: CString) -> Task {
    if folder.depth >= DEPTH
        && let Some(task) = raise(folder, &name)
    {
        return task;
    }
    folder.open.fetch_add(1, Ordering::SeqCst);
    Task { parent: Arc::clone(folder), name }
}

fn remove(parent: &Folder, name: &CStr) -> Result<(), Errno> {
    or_open_up(parent, || fs::unlinkat(&parent.fd, name, AtFlags::REMOVEDIR))
}

/// Does something in a folder, and again after its owner may write there, when that was missing.
fn or_open_up<T>(folder: &Folder, work: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    match work() {
        // The first folder is not part of the tree.
        Err(Errno::ACCESS) if folder.parent.is_some() => {
            fs::fchmod(&folder.fd, Mode::RWXU)?;
            work()
        }
        other => other,
    }
}

/// Opens a folder, which must be one and no link, and on the same mount; gives its owner every
/// permission when it cannot be read.
pub(crate) fn open_folder(parent: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match open_within(parent, name, flags) {
        Err(Errno::ACCESS) => {
            open_up(parent, name)?;
            open_within(parent, name, flags)
        }
        other => other,
    }
}

/// Gives the owner of a folder every permission, through a descriptor that cannot be a link.
fn open_up(parent: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = open_within(parent, name, flags)?;
    fs::chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), Mode::RWXU)
}

fn open_within(parent: &OwnedFd, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_at(parent, Path::new(OsStr::from_bytes(name.to_bytes())), flags)
}

/// Moves a folder that lies deep to the top of its tree; `None` when it cannot be moved.
fn raise(folder: &Arc<Folder>, name: &CStr) -> Option<Task> {
    let mut top = folder;
    while let Some(parent) = &top.parent
        && parent.parent.is_some()
    {
        top = parent;
    }
    let raised = CString::new(format!(".deep-{}", uuid::Uuid::new_v4().simple())).ok()?;
    let rename = || fs::renameat(&folder.fd, name, &top.fd, &raised);
    let moved = match rename() {
        // Moving changes the folder too: it has a new parent.
        Err(Errno::ACCESS) => {
            fs::fchmod(&folder.fd, Mode::RWXU).ok()?;
            open_up(&folder.fd, name).ok()?;
            rename()
        }
        other => other,
    };
    moved.ok()?;
    top.open.fetch_add(1, Ordering::SeqCst);
    Some(Task { parent: Arc::clone(top), name: raised })
}

#[cfg(test)]
#[path = "unlink/tests.rs"]
mod tests;
