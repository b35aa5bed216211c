//! Housekeeping of the volume: what killed processes left in the caches and in the trash.
//!
//! Nothing here looks into the sandbox of an order or at its trusted repository, and no object of a
//! mirror is ever dropped or packed anew: sandboxes borrow them. `git gc` is for that reason not run.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Git, GitError, blocking, lock::FileLock, mirror, removal};
use crate::disk::{touch, trash};

/// How long a damaged mirror is kept for a look at what happened.
const DAMAGED_AGE: Duration = Duration::from_hours(7 * 24);

/// What was found and removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tidied {
    /// Folders in the trash.
    pub trash: usize,
    /// Unfinished clones of mirrors.
    pub clones: usize,
    /// Damaged mirrors that were moved aside long ago.
    pub damaged: usize,
    /// Mirrors that somebody works on, which were left alone.
    pub busy: usize,
}

impl Git {
    /// Removes leftovers of processes that were killed. Safe beside anything else on the volume.
    #[tracing::instrument(name = "git.tidy", skip_all)]
    pub async fn tidy(&self) -> Result<Tidied, GitError> {
        self.prepare().await?;
        let volume = self.volume();
        let (trash, mirrors, note) = (volume.trash(), volume.mirrors(), volume.tidied());
        blocking(move || {
            touch(&note).map_err(GitError::file("write", &note))?;
            let now = changed(&note).unwrap_or_default();
            tidy_volume(&trash, &mirrors, now)
        })
        .await
    }
}

fn tidy_volume(trash: &Path, mirrors: &Path, now: Duration) -> Result<Tidied, GitError> {
    let mut tidied = Tidied::default();
    trash::empty(trash, |_| tidied.trash += 1).map_err(GitError::file("empty", trash))?;
    for folder in entries(mirrors)? {
        tidy_mirror(&folder, now, &mut tidied)?;
    }
    Ok(tidied)
}

/// The lock of a mirror lasts as long as the last process of a clone or fetch: who has it knows that
/// nobody writes.
fn tidy_mirror(folder: &Path, now: Duration, tidied: &mut Tidied) -> Result<(), GitError> {
    if !fs::symlink_metadata(folder).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(());
    }
    let Some(_lock) = FileLock::attempt(&folder.join("lock"))? else {
        tidied.busy += 1;
        return Ok(());
    };
    let staging = folder.join(mirror::STAGING);
    if staging.exists() {
        removal::delete(&staging)?;
        tidied.clones += 1;
    }
    let damaged = folder.join(mirror::DAMAGED);
    if is_older(&damaged, now, DAMAGED_AGE) {
        removal::delete(&damaged)?;
        tidied.damaged += 1;
    }
    let mirror = folder.join("mirror.git");
    if mirror.exists() { mirror::sweep(&mirror) } else { Ok(()) }
}

pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, GitError> {
    let failed = || GitError::file("read the folder", folder);
    let read = fs::read_dir(folder).map_err(failed())?;
    read.map(|entry| entry.map(|entry| entry.path()).map_err(failed())).collect()
}

/// Whether something was put where it is longer ago than `age`.
fn is_older(path: &Path, now: Duration, age: Duration) -> bool {
    changed(path).is_some_and(|changed| now.saturating_sub(changed) > age)
}

/// When something was made, written or renamed, by the clock of its file system.
pub(super) fn changed(path: &Path) -> Option<Duration> {
    let metadata = fs::symlink_metadata(path).ok()?;
    u64::try_from(metadata.ctime()).ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::{DAMAGED_AGE, Tidied, changed, tidy_volume};
    use crate::{disk::trash::hold, git::lock::FileLock};

    #[test]
    fn leftovers_go_when_their_time_is_over_and_nobody_works_there() {
        let root = tempfile::tempdir().unwrap();
        let (trash, mirrors) = (root.path().join("trash"), root.path().join("mirrors"));
        let idle = mirrors.join("aa");
        let busy = mirrors.join("bb");
        for folder in ["mirror.git/objects/pack", "staging.git/objects", "damaged.git"] {
            fs::create_dir_all(idle.join(folder)).unwrap();
            fs::create_dir_all(busy.join(folder)).unwrap();
        }
        fs::create_dir_all(trash.join("wo-1.sandbox.123/checkout")).unwrap();
        for folder in [&idle, &busy] {
            fs::write(folder.join("mirror.git/objects/pack/pack-1.pack"), "objects").unwrap();
            fs::write(folder.join("mirror.git/objects/pack/tmp_pack_x"), "half").unwrap();
            fs::write(folder.join("mirror.git/packed-refs.lock"), "").unwrap();
        }
        fs::write(mirrors.join("a file"), "").unwrap();
        let held = FileLock::attempt(&busy.join("lock")).unwrap().unwrap();
        let now = changed(root.path()).unwrap();

        let deleting = hold(&trash.join("wo-1.sandbox.123"));
        let tidied = tidy_volume(&trash, &mirrors, now).unwrap();
        assert_eq!(tidied, Tidied { clones: 1, busy: 1, ..Tidied::default() });
        assert!(trash.join("wo-1.sandbox.123").exists(), "somebody is deleting it");
        drop(deleting);
        assert!(idle.join("mirror.git/objects/pack/pack-1.pack").exists());
        assert!(!idle.join("mirror.git/objects/pack/tmp_pack_x").exists());
        assert!(!idle.join("mirror.git/packed-refs.lock").exists());
        assert!(idle.join("damaged.git").exists(), "it is kept for a look");

        let later = now + DAMAGED_AGE + Duration::from_secs(9);
        let tidied = tidy_volume(&trash, &mirrors, later).unwrap();
        assert_eq!(tidied, Tidied { trash: 1, damaged: 1, busy: 1, ..Tidied::default() });
        assert!(!idle.join("damaged.git").exists());
        assert!(busy.join("staging.git").exists() && busy.join("damaged.git").exists());
        assert!(busy.join("mirror.git/packed-refs.lock").exists());

        drop(held);
        let tidied = tidy_volume(&trash, &mirrors, later).unwrap();
        assert_eq!(tidied, Tidied { clones: 1, damaged: 1, ..Tidied::default() });
    }
}
