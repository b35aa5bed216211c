//! The one way to read folders that an agent may still change: from a descriptor of their top. No link is
//! followed on the way, no mount is entered, nothing waits, and what was opened is what is judged.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path},
    sync::{Arc, OnceLock},
};

use rustix::{
    fs::{
        self, AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxAttributes,
        StatxFlags,
    },
    io::Errno,
};

/// How a folder is opened to read its names.
pub(crate) const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Nothing waits: not for the other end of a pipe, and not for the holder of a lease on a file.
const PLAIN: OFlags =
    OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
/// How something is opened that is not to be read.
pub(crate) const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Bytes of names that are read at once.
const NAMES: usize = 16 << 10;

/// A folder whose content somebody else makes, and everything below it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Beneath(Arc<OwnedFd>);

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    Link,
    Socket,
    Pipe,
    Device,
    /// The top of another mount: nothing of it belongs here.
    Mount,
}

/// What is known of something without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) kind: Kind,
    /// Permissions, without the kind.
    pub(crate) mode: u32,
    pub(crate) size: u64,
    pub(crate) inode: u64,
    pub(crate) device: (u32, u32),
    pub(crate) links: u32,
    pub(crate) user: u32,
    pub(crate) group: u32,
    /// Blocks of 512 bytes that it takes.
    pub(crate) blocks: u64,
    /// Seconds and nanoseconds.
    pub(crate) modified: (i64, u32),
    /// The same; its owner cannot forge this one.
    pub(crate) changed: (i64, u32),
}

impl Beneath {
    /// Opens a folder that stands in one of ours; a link to one is refused.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let folder = fs::openat(fs::CWD, folder, FOLDER, Mode::empty())?;
        Ok(Self(Arc::new(folder)))
    }

    /// A folder below; the empty path is this one.
    pub(crate) fn folder(&self, path: &Path) -> io::Result<Self> {
        if path.as_os_str().is_empty() {
            return Ok(self.clone());
        }
        Ok(Self(Arc::new(open_at(&self.0, path, FOLDER)?)))
    }

    /// Opens a plain file to read it, and says what it is: what was opened, not what had that name before.
    pub(crate) fn file(&self, path: &Path) -> io::Result<(File, About)> {
        let file = open_at(&self.0, path, PLAIN | OFlags::RDONLY)?;
        let about = About::of(&file)?;
        if about.kind != Kind::File {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file"));
        }
        Ok((File::from(file), about))
    }

    /// What stands under a path, links themselves included.
    pub(crate) fn about(&self, path: &Path) -> io::Result<About> {
        // The kernel walks nowhere for a single name.
        if is_name(path) {
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
            return Ok(About::new(&fs::statx(&self.0, path, flags, WANTED)?));
        }
        About::of(&open_at(&self.0, path, LOOK)?)
    }

    /// Where a link leads, and what it is itself.
    pub(crate) fn link(&self, path: &Path) -> io::Result<(OsString, About)> {
        let link = open_at(&self.0, path, LOOK)?;
        let about = About::of(&link)?;
        let target = fs::readlinkat(&link, c"", Vec::new())?;
        Ok((OsString::from_vec(target.into_bytes()), about))
    }

    /// Has `each` see the names in this folder, until it says that it wants no more.
    pub(crate) fn names(&self, mut each: impl FnMut(&OsStr) -> bool) -> io::Result<()> {
        // Of its own: a shared descriptor has one place in the listing.
        let listed = fs::openat(&self.0, c".", FOLDER, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); NAMES];
        let mut entries = RawDir::new(&listed, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Err(Errno::INTR) => continue,
                entry => entry?,
            };
            let name = entry.file_name();
            if name != c"." && name != c".." && !each(OsStr::from_bytes(name.to_bytes())) {
                break;
            }
        }
        Ok(())
    }

    /// Lets the owner read what it has closed for itself: a file or a folder, never what a link leads to.
    pub(crate) fn open_up(&self, path: &Path) -> io::Result<()> {
        let handle = open_at(&self.0, path, LOOK)?;
        let about = About::of(&handle)?;
        let more = match about.kind {
            Kind::File => Mode::RUSR,
            Kind::Folder => Mode::RWXU,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        // The descriptor itself, which can be no link.
        let itself = format!("/proc/self/fd/{}", handle.as_raw_fd());
        Ok(fs::chmod(itself, Mode::from_raw_mode(about.mode) | more)?)
    }

    /// What this folder itself is.
    pub(crate) fn itself(&self) -> io::Result<About> {
        About::of(&*self.0)
    }
}

impl AsFd for Beneath {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS;

impl About {
    /// What stands behind a descriptor, which cannot change its kind any more.
    pub(crate) fn of(descriptor: impl AsFd) -> io::Result<Self> {
        let found = fs::statx(descriptor, c"", AtFlags::EMPTY_PATH, WANTED)?;
        let mut about = Self::new(&found);
        if about.kind == Kind::Mount {
            // Opened without crossing into it, so it is the top that somebody of ours opened.
            about.kind = kind_of(&found);
        }
        Ok(about)
    }

    fn new(found: &Statx) -> Self {
        let is_mount = found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        Self {
            kind: if is_mount { Kind::Mount } else { kind_of(found) },
            mode: u32::from(found.stx_mode) & 0o7777,
            size: found.stx_size,
            inode: found.stx_ino,
            device: (found.stx_dev_major, found.stx_dev_minor),
            links: found.stx_nlink,
            user: found.stx_uid,
            group: found.stx_gid,
            blocks: found.stx_blocks,
            modified: (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
            changed: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
        }
    }

    /// Whether nobody has changed it between two looks at one descriptor.
    pub(crate) fn is_same(&self, later: &Self) -> bool {
        (self.size, self.modified, self.changed) == (later.size, later.modified, later.changed)
    }
}

fn kind_of(found: &Statx) -> Kind {
    match FileType::from_raw_mode(u32::from(found.stx_mode)) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Folder,
        FileType::Symlink => Kind::Link,
        FileType::Socket => Kind::Socket,
        FileType::Fifo => Kind::Pipe,
        _ => Kind::Device,
    }
}

/// Whether a failure is the machine's, and says nothing of the file: it passes.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let passing = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::IO];
    Errno::from_io_error(error).is_some_and(|error| passing.contains(&error))
}

/// Opens what lies below a folder, whoever moves what on the way.
pub(crate) fn open_at(folder: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let folder = folder.as_fd();
    if !has_openat2() {
        return step_by_step(folder, path, flags);
    }
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    loop {
        match fs::openat2(folder, path, flags, Mode::empty(), resolve) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Whether kernel and filter have the call; without it the same is done name by name.
fn has_openat2() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let tried = fs::openat2(fs::CWD, c".", LOOK, Mode::empty(), ResolveFlags::empty());
        !matches!(tried, Err(Errno::NOSYS | Errno::PERM))
    })
}

fn step_by_step(folder: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut at: Option<OwnedFd> = None;
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else { return Err(Errno::XDEV) };
        let above = at.as_ref().map_or(folder, AsFd::as_fd);
        let flags = if parts.peek().is_some() { LOOK | OFlags::DIRECTORY } else { flags };
        let next = fs::openat(above, name, flags, Mode::empty())?;
        let mount = |fd: BorrowedFd<'_>| {
            let found = fs::statx(fd, c"", AtFlags::EMPTY_PATH, WANTED | StatxFlags::MNT_ID)?;
            Ok::<_, Errno>((found.stx_mnt_id, found.stx_dev_major, found.stx_dev_minor))
        };
        // Files of one overlay may have several devices; only folders are compared by them.
        let (inner, outer) = (mount(next.as_fd())?, mount(above)?);
        if inner.0 != outer.0 || (flags.contains(OFlags::DIRECTORY) && inner != outer) {
            return Err(Errno::XDEV);
        }
        at = Some(next);
    }
    at.ok_or(Errno::NOENT)
}

fn is_name(path: &Path) -> bool {
    let mut parts = path.components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}

#[cfg(test)]
#[path = "beneath/tests.rs"]
mod tests;
