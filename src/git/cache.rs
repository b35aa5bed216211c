//! Keeps the caches of repositories small: packs them anew without dropping an object, and takes those
//! away that nobody has used for long or that do not fit, unless a sandbox borrows from them.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Git, GitError, blocking,
    lock::FileLock,
    objects::BORROWED,
    tidy::{changed, entries},
};
use crate::disk::{DiskSpace, SystemDisk, touch, trash, usage};

/// Says by its time when a cache was used last.
const USED: &str = "used";
/// Packs and loose files of a mirror from which on it is packed anew.
const MANY_FILES: usize = 60;
/// A cache that was used so recently may be about to lend to a new sandbox.
const FRESH: Duration = Duration::from_hours(1);

/// How much may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheLimits {
    /// How long a cache stays that nobody uses.
    pub idle: Option<Duration>,
    /// Bytes of all of them; those used longest ago go first.
    pub bytes: Option<u64>,
}

/// What was done about the caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheReport {
    /// Mirrors that were packed anew.
    pub repacked: usize,
    /// Mirrors that were taken away.
    pub evicted: usize,
    /// Their bytes.
    pub evicted_bytes: u64,
    /// Mirrors that should have gone and from which sandboxes borrow.
    pub borrowed: usize,
    /// Mirrors that somebody works on.
    pub busy: usize,
    /// Bytes of those that are left.
    pub bytes: u64,
}

/// One cache.
#[derive(Debug)]
struct Cache {
    folder: PathBuf,
    bytes: u64,
    /// When it was used last, and how long ago that is.
    used: Duration,
    idle: Duration,
}

impl Cache {
    fn mirror(&self) -> PathBuf {
        self.folder.join("mirror.git")
    }
}

impl Git {
    /// Brings the caches within their limits and packs what became many files. Safe beside anything
    /// else on the volume: each mirror is locked, and no object of one that stays is ever dropped.
    #[tracing::instrument(name = "git.maintain_cache", skip_all)]
    pub async fn maintain_cache(&self, limits: CacheLimits) -> Result<CacheReport, GitError> {
        self.prepare().await?;
        let (git, mut report) = (self.clone(), CacheReport::default());
        let mut caches = blocking(move || git.caches()).await?;
        caches.sort_by_key(|cache| std::cmp::Reverse(cache.idle));
        let mut total: u64 = caches.iter().map(|cache| cache.bytes).sum();
        let mut left = Vec::new();
        for cache in caches {
            let old = limits.idle.is_some_and(|idle| cache.idle >= idle);
            let large = limits.bytes.is_some_and(|most| total > most) && cache.idle >= FRESH;
            if !old && !large {
                left.push(cache);
                continue;
            }
            let (git, bytes) = (self.clone(), cache.bytes);
            let (cache, end) = blocking(move || git.evict(&cache).map(|end| (cache, end))).await?;
            match end {
                Eviction::Gone => {
                    total = total.saturating_sub(bytes);
                    report.evicted += 1;
                    report.evicted_bytes += bytes;
                }
                Eviction::Borrowed => {
                    report.borrowed += 1;
                    left.push(cache);
                }
                Eviction::Busy => report.busy += 1,
            }
        }
        for cache in left {
            match self.repack(&cache).await {
                Ok(Some(true)) => report.repacked += 1,
                Ok(Some(false)) => {}
                Ok(None) => report.busy += 1,
                Err(error) => {
                    let path = cache.folder.display();
                    tracing::warn!("cannot pack the cache {path}: {}", error.sentence());
                }
            }
        }
        report.bytes = total;
        Ok(report)
    }

    fn caches(&self) -> Result<Vec<Cache>, GitError> {
        let note = self.volume().tidied();
        touch(&note).map_err(GitError::file("write", &note))?;
        let now = changed(&note).unwrap_or_default();
        let mut caches = Vec::new();
        for folder in entries(&self.volume().mirrors())? {
            let mirror = folder.join("mirror.git");
            let Some(made) = changed(&mirror) else { continue };
            let used = changed(&folder.join(USED)).unwrap_or(made);
            let bytes = usage(&mirror, &|| true).map_or(0, |usage| usage.bytes);
            caches.push(Cache { folder, bytes, used, idle: now.saturating_sub(used) });
        }
        Ok(caches)
    }

    /// Takes a mirror away under its lock, unless it was used meanwhile or is borrowed from.
    fn evict(&self, cache: &Cache) -> Result<Eviction, GitError> {
        let Some(_lock) = FileLock::attempt(&cache.folder.join("lock"))? else {
            return Ok(Eviction::Busy);
        };
        let (mirror, trash) = (cache.mirror(), self.volume().trash());
        if changed(&cache.folder.join(USED)).is_some_and(|used| used > cache.used) {
            return Ok(Eviction::Busy);
        }
        if self.lenders()?.contains(&mirror.join("objects")) {
            return Ok(Eviction::Borrowed);
        }
        let name = cache.folder.file_name().unwrap_or_default().to_string_lossy();
        let place = trash.join(format!("mirror-{name}.{}", uuid::Uuid::new_v4().simple()));
        fs::rename(&mirror, &place).map_err(GitError::file("move to the trash", &mirror))?;
        trash::clear(&place).map_err(GitError::file("delete", &place))?;
        Ok(Eviction::Gone)
    }

    /// The object stores that trusted repositories, finished or in the making, borrow from. The agent
    /// cannot write there; what its own checkout borrows from is the same.
    fn lenders(&self) -> Result<HashSet<PathBuf>, GitError> {
        let mut lenders = HashSet::new();
        for trusted in entries(&self.volume().trusted_folder())? {
            let list = fs::read_to_string(trusted.join(BORROWED));
            lenders.extend(list.unwrap_or_default().lines().map(PathBuf::from));
        }
        Ok(lenders)
    }

    /// Packs a mirror of many files into one pack; answers whether it did, `None` when it is busy.
    ///
    /// Sandboxes may borrow any object, also ones that no ref of the mirror reaches any more: these are
    /// kept in the pack. Readers find an object in the new pack when the old one is gone.
    async fn repack(&self, cache: &Cache) -> Result<Option<bool>, GitError> {
        let (mirror, lock, bytes) = (cache.mirror(), cache.folder.join("lock"), cache.bytes);
        let volume = self.volume().root().to_owned();
        let objects = mirror.join("objects");
        let locked = blocking(move || {
            // The new pack stands beside the old ones until it is complete.
            let room = SystemDisk.space(&volume).is_ok_and(|space| space.free_bytes > 2 * bytes);
            if !room || files_at_most(&objects, MANY_FILES) {
                return Ok(Some(None));
            }
            Ok(FileLock::attempt(&lock)?.map(Some))
        })
        .await?;
        let lock = match locked {
            None => return Ok(None),
            Some(None) => return Ok(Some(false)),
            Some(Some(lock)) => lock,
        };
        self.invoke("repack")
            .args(["-a", "-d", "--keep-unreachable", "--quiet"])
            .within(&mirror)
            .holding(&lock)
            .check()
            .await?;
        Ok(Some(true))
    }
}

enum Eviction {
    Gone,
    Borrowed,
    Busy,
}

/// Notes that a cache is about to be used: it is not taken away for the next hour.
pub(super) async fn note_use(folder: &Path) -> Result<(), GitError> {
    let folder = folder.to_owned();
    blocking(move || {
        let note = folder.join(USED);
        fs::create_dir_all(&folder)
            .and_then(|()| touch(&note))
            .map_err(GitError::file("write", &note))
    })
    .await
}

/// Whether a store has no more than so many packs and loose objects.
fn files_at_most(objects: &Path, most: usize) -> bool {
    let mut count = 0;
    for folder in fs::read_dir(objects).into_iter().flatten().flatten() {
        let name = folder.file_name();
        if name != "info" {
            count += fs::read_dir(folder.path()).into_iter().flatten().count();
        }
        if count > most {
            return false;
        }
    }
    true
}
