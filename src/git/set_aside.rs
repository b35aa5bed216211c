//! Saves what an agent left and no commit holds, as one compressed tar beside the bundle of its work.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Seek, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use tar::{Builder, EntryType, Header};

use super::{
    Claim, GitError, Sandbox,
    bundle::fingerprint,
    reading::{Reading, reading},
    worktree::Worktree,
};
use crate::{
    disk::{About, Beneath, Cut, Kept, Kind, Redacted, judge},
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
        reading(move |reading| match git.recorded(&order) {
            Some((sandbox, _)) => sandbox.set_aside(&folder, reading),
            None => Ok(None),
        })
        .await
    }
}

impl Sandbox {
    fn set_aside(&self, folder: &Path, reading: &Reading) -> Result<Option<SetAside>, GitError> {
        let worktree = match Worktree::open(self, reading) {
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
        let written = self.pack(&worktree.top, &paths, &staged, reading);
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

    fn pack(
        &self,
        top: &Beneath,
        paths: &[PathBuf],
        to: &Path,
        reading: &Reading,
    ) -> Result<(), GitError> {
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
            reading.go_on()?;
            let below = add(&mut builder, top, &name, self.git.redactor())
                .map_err(GitError::file("save what is in no commit:", &name))?;
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
    top: &Beneath,
    name: &Path,
    redactor: &Redactor,
) -> io::Result<Vec<PathBuf>> {
    let about = match top.about(name) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    match about.kind {
        Kind::Link => {
            let (target, about) = top.link(name)?;
            builder.append_link(&mut header(&about, EntryType::Symlink), name, target)?;
        }
        Kind::Folder => {
            let folder = opened(top, name, || top.folder(name))?;
            builder.append_data(&mut header(&about, EntryType::Directory), name, io::empty())?;
            let mut names = Vec::new();
            folder.names(|below| {
                names.push(name.join(below));
                true
            })?;
            names.sort();
            return Ok(names);
        }
        Kind::File => {
            let (mut file, about) = opened(top, name, || top.file(name))?;
            let judged = judge((&file).take(about.size), redactor, Cut::WhereKnown)?;
            file.rewind()?;
            let content = file.take(about.size);
            let (length, content): (u64, Box<dyn Read>) = match judged {
                Kept::Whole => (about.size, Box::new(content)),
                Kept::Redacted(length) => (length, Box::new(Redacted::new(content, redactor))),
            };
            let mut header = header(&about, EntryType::Regular);
            header.set_size(length);
            header.set_cksum();
            // Exactly as many bytes as were announced, whatever the file has become.
            builder.append_data(&mut header, name, content.chain(io::repeat(0)).take(length))?;
        }
        Kind::Socket | Kind::Pipe | Kind::Device | Kind::Mount => {}
    }
    Ok(Vec::new())
}

/// Opens what its owner may have closed for itself.
fn opened<T>(top: &Beneath, name: &Path, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match open() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            top.open_up(name)?;
            open()
        }
        other => other,
    }
}

/// Permissions and time; no owner, no special bits.
fn header(about: &About, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(about.mode & 0o777);
    header.set_mtime(u64::try_from(about.modified.0).unwrap_or_default());
    header.set_size(0);
    header.set_cksum();
    header
}
