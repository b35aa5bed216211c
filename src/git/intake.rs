//! Takes one file of an agent into the objects of the trusted repository, with the bytes that git would commit.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::Path,
};

use git2::{Oid, Repository};
use nix::fcntl::OFlag;

use super::{
    GitError,
    attributes::Value,
    conversion::{Conversion, LONGEST},
    lfs_content::{self, Pointer},
    walk::Changed,
};

/// Where files are taken from, and where to.
pub(super) struct Intake<'a> {
    pub(super) repository: &'a Repository,
    pub(super) top: &'a Path,
    /// Whether contents of Git LFS are kept and sent.
    pub(super) lfs: bool,
}

/// What became of a file.
pub(super) enum Taken {
    /// It is stored.
    Stored(Oid, Metadata),
    /// It is stored as it is, and a commit must not have it like that.
    Refused(Oid, Metadata, GitError),
    /// It may not be read.
    Unreadable,
    /// It vanished.
    Gone,
}

impl Intake<'_> {
    /// Takes a file; `before` is its content on the branch.
    pub(super) fn take(&self, file: &Changed, before: Option<Oid>) -> Result<Taken, GitError> {
        let place = self.top.join(OsStr::from_bytes(&file.path));
        let taken = match fs::symlink_metadata(&place) {
            Ok(about) if about.is_symlink() => fs::read_link(&place)
                .map(|target| (target, about))
                .map(|(target, about)| self.store(target.as_os_str().as_bytes(), about)),
            Ok(_) => self.take_plain(&place, file, before),
            Err(error) => Err(error),
        };
        match taken {
            Ok(taken) => taken,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Taken::Gone),
            Err(error) if crate::disk::is_full(&error) => {
                Err(GitError::file("take over", &place)(error))
            }
            Err(_) => Ok(Taken::Unreadable),
        }
    }

    fn take_plain(
        &self,
        place: &Path,
        file: &Changed,
        before: Option<Oid>,
    ) -> io::Result<Result<Taken, GitError>> {
        let read = file.rules.attributes(&file.path, Conversion::of);
        let conversion = *read.as_ref().unwrap_or(&Conversion::none());
        if conversion.is_lfs
            && self.lfs
            && let Some((pointer, about)) = lfs_content::take(place, self.repository.path())?
        {
            return Ok(self.store(pointer.text().as_bytes(), about));
        }
        // The agent may have put a link or a pipe there since we looked.
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let mut source = File::options().read(true).custom_flags(flags).open(place)?;
        let about = source.metadata()?;
        if !about.is_file() {
            return Err(io::Error::other("it is not a plain file any more"));
        }
        if about.len() > LONGEST {
            let refusal = refuse_long(file, read);
            let stored = self.copy(&mut source, about.len())?;
            return Ok(stored.map(|id| finish(id, about, refusal)));
        }
        let mut content = Vec::new();
        source.take(LONGEST).read_to_end(&mut content)?;
        let is_content = || !content.is_empty() && Pointer::parse(&content).is_none();
        let old = || Some(self.repository.find_blob(before?).ok()?.content().to_vec());
        let refusal = match read {
            Err(reason) => file.unconvertible(reason),
            Ok(conversion) if conversion.is_lfs && is_content() => {
                GitError::NeedsLfs { path: file.shown() }
            }
            Ok(conversion) => match conversion.apply(&content, old) {
                Ok(converted) => return Ok(self.store(&converted, about)),
                Err(reason) => file.unconvertible(reason),
            },
        };
        Ok(self.blob(&content).map(|id| finish(id, about, Some(refusal))))
    }

    fn store(&self, content: &[u8], about: Metadata) -> Result<Taken, GitError> {
        self.blob(content).map(|id| Taken::Stored(id, about))
    }

    fn blob(&self, content: &[u8]) -> Result<Oid, GitError> {
        self.repository.blob(content).map_err(self.not_stored(content.len() as u64))
    }

    /// Stores a file without holding it in memory. The outer error is of reading it.
    fn copy(&self, source: &mut File, length: u64) -> io::Result<Result<Oid, GitError>> {
        let mut writer = match self.repository.blob_writer(None) {
            Ok(writer) => writer,
            Err(error) => return Ok(Err(self.not_stored(length)(error))),
        };
        let mut chunk = vec![0; 256 << 10];
        let mut left = length;
        loop {
            let read = source.read(&mut chunk)?;
            if read == 0 {
                return Ok(writer.commit().map_err(self.not_stored(left)));
            }
            if let Err(error) = writer.write_all(&chunk[..read]) {
                let error = git2::Error::from_str(&error.to_string());
                return Ok(Err(self.not_stored(left)(error)));
            }
            left = left.saturating_sub(read as u64);
        }
    }

    /// Why a content could not be stored of which that many bytes were still to be written. libgit2 does
    /// not say why a write failed, and shows what it said last: the volume is asked.
    fn not_stored(&self, left: u64) -> impl FnOnce(git2::Error) -> GitError {
        move |error| {
            let place = self.repository.path();
            let free = nix::sys::statvfs::statvfs(place).map_or(u64::MAX, |found| {
                found.blocks_available().saturating_mul(found.fragment_size())
            });
            if free <= left {
                let full = io::Error::from(io::ErrorKind::StorageFull);
                return GitError::file("stage the files of the agent in", place)(full);
            }
            GitError::library("stage the files of the agent")(error)
        }
    }
}

impl Changed {
    /// Its path, for people.
    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }

    fn unconvertible(&self, reason: String) -> GitError {
        let encoding = self.rules.attributes(&self.path, |attributes| {
            match attributes.get("working-tree-encoding") {
                Some(Value::Text(text)) => String::from_utf8_lossy(text).into_owned(),
                _ => "true".to_owned(),
            }
        });
        GitError::Encoding { path: self.shown(), encoding, reason }
    }
}

fn finish(id: Oid, about: Metadata, refusal: Option<GitError>) -> Taken {
    match refusal {
        Some(refusal) => Taken::Refused(id, about, refusal),
        None => Taken::Stored(id, about),
    }
}

/// Long files are stored as they are, unless that is known to be wrong.
fn refuse_long(file: &Changed, read: Result<Conversion, String>) -> Option<GitError> {
    match read {
        Err(reason) => Some(file.unconvertible(reason)),
        Ok(conversion) if conversion.is_lfs => Some(GitError::NeedsLfs { path: file.shown() }),
        Ok(conversion) if conversion.is_encoded() => {
            Some(file.unconvertible(format!("it has more than {} MiB", LONGEST >> 20)))
        }
        Ok(_) => None,
    }
}
