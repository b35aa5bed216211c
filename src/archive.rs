//! Keeps what agents leave in their sandboxes in object storage: a folder, or anything that speaks S3.
//!
//! An archive holds only what the agent could write. Commits and uncommitted files have their bundle, which
//! never leaves the trusted volume: whoever can write to the storage cannot make the worker push.

mod pack;

use std::{
    fs::{self, File},
    io::{self, Read, Seek},
    path::{Path as FsPath, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use object_store::{
    BackoffConfig, ObjectStore, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    buffered::BufWriter,
    parse_url,
    path::Path,
};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::{
    config::ArchiveConfig,
    disk::Cut,
    domain::{Redactor, WorkOrderId},
};
use pack::Folder;

/// The name of the folder whose files git knows.
const CHECKOUT: &str = "checkout";
/// Bytes that are sent at once; S3 takes parts from 5 MiB.
const PART: usize = 8 << 20;
/// An object may be larger than what it holds by this, and by an eighth: names, and what does not shrink.
const SLACK: u64 = 64 << 20;

/// Why something could not be archived or brought back.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The storage refused, or did not answer.
    #[error("the archive {place} failed: {reason}")]
    Storage {
        /// `AWO_ARCHIVE_URL`.
        place: String,
        /// What it said.
        reason: String,
    },
    /// The files could not be read or written.
    #[error("cannot {doing}: {reason}")]
    Files {
        /// What was being done.
        doing: &'static str,
        /// The system's reason.
        reason: io::Error,
    },
    /// What came back is not what was stored.
    #[error("{key} in the archive has been changed since it was stored: it is not used")]
    Changed {
        /// The object.
        key: String,
    },
}

/// An object that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its key below `AWO_ARCHIVE_URL`.
    pub key: String,
    /// SHA-256 of it, in hex.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
}

/// The storage behind `AWO_ARCHIVE_URL`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Archive {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    place: String,
    limit: u64,
}

impl Archive {
    /// Opens the storage; the network is not asked yet.
    ///
    /// # Errors
    /// The address or an option is not what the storage understands.
    pub fn open(config: &ArchiveConfig) -> Result<Self, ArchiveError> {
        crate::tls::choose_provider();
        let place = config.url.to_string();
        let (store, prefix): (Arc<dyn ObjectStore>, Path) = if config.url.scheme() == "s3" {
            let mut builder = AmazonS3Builder::new().with_url(&place).with_retry(patience());
            for (name, value) in &config.options {
                let key = name.parse::<AmazonS3ConfigKey>().map_err(storage(&place))?;
                builder = builder.with_config(key, value.expose_secret());
            }
            let prefix = Path::from_url_path(config.url.path()).unwrap_or_default();
            (Arc::new(builder.build().map_err(storage(&place))?), prefix)
        } else {
            let (store, prefix) = parse_url(&config.url).map_err(storage(&place))?;
            (Arc::from(store), prefix)
        };
        Ok(Self { store, prefix, place, limit: config.max_bytes })
    }

    /// Stores folders of an order without the secrets that the redactor knows, each under a name of its own;
    /// `None` when they are larger than `AWO_ARCHIVE_MAX`. In a checkout only files are changed that hold a
    /// secret of this installation, elsewhere also what looks like a token of a vendor.
    #[tracing::instrument(name = "archive.save", skip_all, fields(order = %order))]
    pub async fn save(
        &self,
        order: &WorkOrderId,
        name: &str,
        folders: Vec<(&'static str, PathBuf)>,
        redactor: &Redactor,
    ) -> Result<Option<Stored>, ArchiveError> {
        let key = format!("{order}/{name}.tar.gz");
        let writer = BufWriter::with_capacity(Arc::clone(&self.store), self.path(&key), PART);
        let writer = SyncIoBridge::new(writer);
        let (limit, redactor) = (self.limit, redactor.clone());
        let work = move || {
            let cut = |name| if name == CHECKOUT { Cut::WhereKnown } else { Cut::Everything };
            let folders =
                folders.into_iter().map(|(name, path)| Folder { name, path, cut: cut(name) });
            let folders: Vec<Folder> = folders.collect();
            let mut out = Digesting { inner: writer, digest: Sha256::new(), bytes: 0 };
            let packed = pack::pack(&folders, limit, &redactor, &mut out).map(|(packed, _)| packed);
            let Digesting { inner: mut writer, digest, bytes } = out;
            let done = packed.and_then(|packed| {
                if !packed.over_limit {
                    writer.shutdown()?;
                }
                Ok((packed, format!("{:x}", digest.finalize()), bytes))
            });
            (done, writer.into_inner())
        };
        let (packed, mut writer) = tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| files("pack the sandbox")(io::Error::other("it was interrupted")))?;
        match packed {
            Ok((packed, sha256, size)) if !packed.over_limit => {
                Ok(Some(Stored { key, sha256, size }))
            }
            other => {
                // What was sent so far is no object; the storage forgets its parts.
                if let Err(error) = writer.abort().await {
                    tracing::debug!(key, "an upload could not be given up: {error}");
                }
                other.map(|_| None).map_err(files("store the sandbox in the archive"))
            }
        }
    }

    /// Removes an object that is of no use. That it stays costs space and nothing else.
    pub async fn forget(&self, stored: &Stored) {
        if let Err(error) = self.store.delete(&self.path(&stored.key)).await {
            tracing::warn!(key = stored.key, "an object of no use stays in the archive: {error}");
        }
    }

    /// Unpacks an object into the empty folder `into`, which is of no use after an error.
    #[tracing::instrument(name = "archive.fetch", skip_all, fields(key = key))]
    pub async fn fetch(&self, key: &str, sha256: &str, into: &FsPath) -> Result<(), ArchiveError> {
        let found = self.store.get(&self.path(key)).await.map_err(storage(&self.place))?;
        let stream = found.into_stream().map(|part| part.map_err(io::Error::other));
        let reader = SyncIoBridge::new(StreamReader::new(stream));
        let (into, limit, sha256) = (into.to_owned(), self.limit, sha256.to_owned());
        let work = move || {
            // Nothing of the object is understood before it is known to be the one that was stored.
            let mut object = nameless_file(&into)?;
            let most = limit.saturating_add(limit / 8).saturating_add(SLACK);
            let mut reader = Digesting { inner: reader, digest: Sha256::new(), bytes: 0 };
            io::copy(&mut (&mut reader).take(most), &mut object)?;
            if format!("{:x}", reader.digest.finalize()) != sha256 {
                return Ok(false);
            }
            object.rewind()?;
            pack::unpack(io::BufReader::new(object), limit, &into)?;
            Ok::<_, io::Error>(true)
        };
        let is_ours = tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| files("unpack the archive")(io::Error::other("it was interrupted")))?
            .map_err(files("unpack the archive"))?;
        if is_ours { Ok(()) } else { Err(ArchiveError::Changed { key: key.to_owned() }) }
    }

    /// Asks the storage for anything, to see that it answers.
    pub async fn check(&self) -> Result<(), ArchiveError> {
        let mut listing = self.store.list(Some(&self.prefix));
        listing.next().await.transpose().map(drop).map_err(storage(&self.place))
    }

    fn path(&self, key: &str) -> Path {
        key.split('/').fold(self.prefix.clone(), Path::join)
    }
}

/// A file below `folder` that goes with its descriptor.
fn nameless_file(folder: &FsPath) -> io::Result<File> {
    let path = folder.join(".object");
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// A sandbox that cannot be archived now is tried again within the hour: no reason to hold a slot for long.
fn patience() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 5,
        retry_timeout: Duration::from_secs(30),
    }
}

fn storage(place: &str) -> impl FnOnce(object_store::Error) -> ArchiveError + use<> {
    let place = place.to_owned();
    move |error| ArchiveError::Storage { place, reason: error.to_string() }
}

fn files(doing: &'static str) -> impl Fn(io::Error) -> ArchiveError {
    move |reason| ArchiveError::Files { doing, reason }
}

/// Counts and digests what passes through.
struct Digesting<T> {
    inner: T,
    digest: Sha256,
    bytes: u64,
}

impl<T> Digesting<T> {
    fn note(&mut self, passed: &[u8]) {
        self.digest.update(passed);
        self.bytes += passed.len() as u64;
    }
}

impl<T: io::Write> io::Write for Digesting<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.note(&buffer[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: io::Read> io::Read for Digesting<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.note(&buffer[..read]);
        Ok(read)
    }
}
