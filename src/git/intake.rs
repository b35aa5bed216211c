//! Takes one file of an agent into the objects of the trusted repository, with the bytes that git would commit.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Seek, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use git2::{Oid, Repository};

use super::{
    GitError,
    attributes::Value,
    conversion::{Conversion, LONGEST},
    lfs_content::{self, Pointer},
    reading::Reading,
    walk::Changed,
};
use crate::disk::{About, Beneath, Kind, beneath::is_shortage};

/// How often a file is read again that changes while it is read.
const ROUNDS: usize = 3;

/// Where files are taken from, and where to.
pub(super) struct Intake<'a> {
    pub(super) repository: &'a Repository,
    pub(super) top: &'a Beneath,
    /// What it may cost.
    pub(super) reading: &'a Reading,
    /// Whether contents of Git LFS are kept and sent.
    pub(super) lfs: bool,
}

/// What became of a file.
pub(super) enum Taken {
    /// It is stored.
    Stored(Oid, About),
    /// It is stored as it is, and a commit must not have it like that.
    Refused(Oid, About, GitError),
    /// It may not be read.
    Unreadable,
    /// It vanished.
    Gone,
}

impl Intake<'_> {
    /// Takes a file; `before` is its content on the branch.
    pub(super) fn take(&self, file: &Changed, before: Option<Oid>) -> Result<Taken, GitError> {
        let place = Path::new(OsStr::from_bytes(&file.path));
        for _ in 0..ROUNDS {
            self.reading.go_on()?;
            let taken = match self.top.about(place) {
                Ok(about) if about.kind == Kind::Link => self
                    .top
                    .link(place)
                    .map(|(target, about)| self.store(target.as_bytes(), about).map(Some)),
                Ok(about) if about.kind == Kind::File => self.take_plain(place, file, before),
                Ok(_) => return Ok(Taken::Unreadable),
                Err(error) => Err(error),
            };
            match taken {
                Ok(Ok(Some(taken))) => return Ok(taken),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => return Err(error),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Taken::Gone),
                Err(error) if crate::disk::is_full(&error) || is_shortage(&error) => {
                    return Err(GitError::file("take over", place)(error));
                }
                Err(_) => {
                    self.reading.go_on()?;
                    return Ok(Taken::Unreadable);
                }
            }
        }
        Err(GitError::Moving { path: file.shown() })
    }

    /// Takes a plain file; `None` when it has changed meanwhile.
    fn take_plain(
        &self,
        place: &Path,
        file: &Changed,
        before: Option<Oid>,
    ) -> io::Result<Result<Option<Taken>, GitError>> {
        let (mut source, about) = self.top.file(place)?;
        let taken = self.take_opened(&mut source, about, file, before)?;
        let is_same = about.is_same(&About::of(&source)?);
        Ok(taken.map(|taken| is_same.then_some(taken)))
    }

    fn take_opened(
        &self,
        source: &mut File,
        about: About,
        file: &Changed,
        before: Option<Oid>,
    ) -> io::Result<Result<Taken, GitError>> {
        let read = file.rules.attributes(&file.path, Conversion::of);
        let conversion = *read.as_ref().unwrap_or(&Conversion::none());
        if conversion.is_lfs
            && self.lfs
            && let Some(pointer) = {
                source.rewind()?;
                let go_on = || self.reading.go_on().is_ok();
                lfs_content::take(source, about.size, self.repository.path(), &go_on)?
            }
        {
            return Ok(self.store(pointer.text().as_bytes(), about));
        }
        source.rewind()?;
        if about.size > LONGEST {
            let refusal = refuse_long(file, read);
            let stored = self.copy(source, about.size)?;
            return Ok(stored.map(|id| finish(id, about, refusal)));
        }
        let mut content = Vec::new();
        source.take(about.size).read_to_end(&mut content)?;
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

    fn store(&self, content: &[u8], about: About) -> Result<Taken, GitError> {
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
        let (mut left, mut source) = (length, source.take(length));
        loop {
            if let Err(error) = self.reading.go_on() {
                return Ok(Err(error));
            }
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

fn finish(id: Oid, about: About, refusal: Option<GitError>) -> Taken {
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
