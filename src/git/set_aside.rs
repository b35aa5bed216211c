//! Saves what an agent left and no commit holds, as one compressed tar beside the bundle of its work.

use std::{
    fs::{self, File, Metadata, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use nix::fcntl::OFlag;
use tar::{Builder, EntryType, Header};

use super::{Claim, GitError, Sandbox, blocking, bundle::fingerprint, worktree::Worktree};
use crate::{
    disk::{Cut, Kept, Redacted, judge},
    domain::Redactor,
};

/// A file with what no commit holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
}

impl Claim {
    /// Saves what was left out of the order's commits, and has content, as a file in `folder` (made when it
    /// is missing); `None` when there is nothing. The same is saved once: a second call finds the file.
    #[tracing::instrument(name = "git.save_left_out", skip_all, fields(order = %self.order()))]
    pub async fn save_left_out(&self, folder: &Path) -> Result<Option<SetAside>, GitError> {
        let (git, order, folder) = (self.git().clone(), self.order().clone(), folder.to_owned());
        blocking(move || match git.recorded(&order) {
            Some((sandbox, _)) => sandbox.set_aside(&folder),
            None => Ok(None),
        })
        .await
    }
}

impl Sandbox {
    fn set_aside(&self, folder: &Path) -> Result<Option<SetAside>, GitError> {
        let worktree = match Worktree::open(self) {
            Ok(worktree) => worktree,
            // The agent removed its own checkout.
            Err(GitError::NoCheckout { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let left = worktree.stage(&self.branch_head(&worktree.repository)?)?.left_out;
        let Some(paths) = left.with_content() else {
            let problem =
                format!("{} files and folders are in no commit, too many to save", left.count());
            return Err(GitError::Unusable(problem));
        };
        if paths.is_empty() {
            return Ok(None);
        }
        fs::create_dir_all(folder).map_err(GitError::file("make the folder", folder))?;
        let staged = folder.join("left-out.part");
        let written = self.pack(&paths, &staged);
        if written.is_err() {
            let _ = fs::remove_file(&staged);
        }
        written?;
        let (sha256, size) = fingerprint(&staged)?;
        let path = folder.join(format!("{sha256}.left-out.tar.gz"));
        fs::rename(&staged, &path)
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(GitError::file("keep", &path))?;
        Ok(Some(SetAside { path, sha256, size }))
    }

    fn pack(&self, paths: &[PathBuf], to: &Path) -> Result<(), GitError> {
        let begin = || {
            let file = File::create(to)?;
            // The files of an agent may hold anything; they are for the owner alone.
            file.set_permissions(Permissions::from_mode(0o600))?;
            Ok(Builder::new(GzEncoder::new(file, Compression::fast())))
        };
        let mut builder = begin().map_err(GitError::file("write", to))?;
        builder.follow_symlinks(false);
        let mut pending: Vec<PathBuf> = paths.iter().rev().cloned().collect();
        while let Some(name) = pending.pop() {
            let place = self.checkout.join(&name);
            let below = add(&mut builder, &name, &place, self.git.redactor())
                .map_err(GitError::file("save what is in no commit:", &place))?;
            pending.extend(below.into_iter().rev());
        }
        let end = || {
            let file = builder.into_inner()?.finish()?;
            file.sync_all()
        };
        end().map_err(GitError::file("write", to))
    }
}

/// Adds a file, a link or a folder; answers what is in the folder. What has no content is passed over.
fn add<W: Write>(
    builder: &mut Builder<W>,
    name: &Path,
    place: &Path,
    redactor: &Redactor,
) -> io::Result<Vec<PathBuf>> {
    let about = match fs::symlink_metadata(place) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    if about.is_symlink() {
        let target = fs::read_link(place)?;
        builder.append_link(&mut header(&about, EntryType::Symlink), name, target)?;
    } else if about.is_dir() {
        builder.append_data(&mut header(&about, EntryType::Directory), name, io::empty())?;
        let listed = opened(place, &about, 0o700, || fs::read_dir(place))?;
        let names = listed.map(|entry| entry.map(|entry| name.join(entry.file_name())));
        let mut names = names.collect::<io::Result<Vec<PathBuf>>>()?;
        names.sort();
        return Ok(names);
    } else if about.is_file() {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let open = || File::options().read(true).custom_flags(flags).open(place);
        let open = || Ok::<_, io::Error>(opened(place, &about, 0o400, open)?.take(about.len()));
        let (length, file): (u64, Box<dyn Read>) = match judge(open()?, redactor, Cut::WhereKnown)?
        {
            Kept::Whole => (about.len(), Box::new(open()?)),
            Kept::Redacted(length) => (length, Box::new(Redacted::new(open()?, redactor))),
        };
        let mut header = header(&about, EntryType::Regular);
        header.set_size(length);
        header.set_cksum();
        // Exactly as many bytes as were announced, whatever the file has become.
        builder.append_data(&mut header, name, file.chain(io::repeat(0)).take(length))?;
    }
    Ok(Vec::new())
}

/// Opens what its owner may have closed for itself.
fn opened<T>(
    place: &Path,
    about: &Metadata,
    mode: u32,
    open: impl Fn() -> io::Result<T>,
) -> io::Result<T> {
    match open() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            fs::set_permissions(place, Permissions::from_mode(about.mode() & 0o777 | mode))?;
            open()
        }
        other => other,
    }
}

/// Permissions and time; no owner, no special bits.
fn header(about: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(about.mode() & 0o777);
    header.set_mtime(u64::try_from(about.mtime()).unwrap_or_default());
    header.set_size(0);
    header.set_cksum();
    header
}
