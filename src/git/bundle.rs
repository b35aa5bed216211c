//! Saves what only a sandbox has: commits its remote lacks and files nobody committed, as one git bundle.

use std::{
    fs::{self, File, Permissions},
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use git2::{Commit, Oid, Repository, Signature};
use sha2::{Digest, Sha256};

use super::{
    Git, GitError, Remote, Sandbox,
    ancestry::builds_on,
    blocking,
    lfs::with_contents,
    lock::FileLock,
    reading::{Reading, reading},
    secrets::cut_secrets,
    undo::remembered,
    worktree::Worktree,
};
use crate::domain::WorkOrderId;

/// The order's branch, when it has commits of its own.
pub(super) const HEAD_REF: &str = "refs/awo/bundle/head";
/// The files of the checkout as a commit on top of the branch; the branch itself when they agree.
pub(super) const FILES_REF: &str = "refs/awo/bundle/files";
/// The most that is read of a bundle's header, in bytes; ours has four lines.
const HEADER_LIMIT: u64 = 64 << 10;

/// A file with everything of an order that was nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Where it is.
    pub path: PathBuf,
    /// The commit the order started from; the repository must still have it for a restore.
    pub base: String,
    /// The branch of the order.
    pub head: String,
    /// A commit with the files of the checkout, `head` itself when all of them were committed.
    pub files: String,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
}

/// What the header of a bundle says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) base: String,
    pub(super) head: String,
    pub(super) files: String,
}

/// What is done about files whose content Git LFS keeps, and which nobody has sent yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contents {
    /// Their pointers are enough.
    Left,
    /// They are stored like any other file.
    Taken,
}

impl Git {
    /// Saves the unpushed work of an order as a file in `folder` (made when it is missing); `None`
    /// when there is none. The same work is saved once: a second call finds the file.
    ///
    /// Unpushed is what `remote` does not have on the order's branch; without a remote, or when it
    /// does not answer, that is everything since the order started. Files are taken as a commit
    /// takes them: what `.gitignore` names is left out, and what [`Claim::save_left_out`] saves.
    ///
    /// [`Claim::save_left_out`]: super::Claim::save_left_out
    #[tracing::instrument(name = "git.save_unpushed", skip_all, fields(order = %order))]
    pub async fn save_unpushed(
        &self,
        order: &WorkOrderId,
        remote: Option<&Remote>,
        folder: &Path,
    ) -> Result<Option<Bundle>, GitError> {
        let lock = self.lock_order(order).await?;
        self.save_held(order, remote, folder, &lock).await
    }

    /// The same for a caller that has the lock of the order.
    pub(super) async fn save_held(
        &self,
        order: &WorkOrderId,
        remote: Option<&Remote>,
        folder: &Path,
        lock: &FileLock,
    ) -> Result<Option<Bundle>, GitError> {
        // Without a record no agent ever worked there.
        let (git, id) = (self.clone(), order.clone());
        let Some((sandbox, _)) = blocking(move || Ok(git.recorded(&id))).await? else {
            return Ok(None);
        };
        let snapshot = |contents| {
            let sandbox = sandbox.clone();
            reading(move |reading| sandbox.snapshot(contents, reading))
        };
        let plain = snapshot(Contents::Left).await?;
        let Header { base, head, files } = &plain;
        if files == base {
            return Ok(None);
        }
        if files == head && sandbox.is_pushed(remote, head).await {
            return Ok(None);
        }
        // Pointers would be all that is saved of what nobody else has.
        let snapshot =
            if sandbox.parts.lfs { snapshot(Contents::Taken).await? } else { plain.clone() };
        let files = &snapshot.files;
        let path = folder.join(format!("{files}.bundle"));
        let looked_for = path.clone();
        if !blocking(move || Ok(looked_for.exists())).await? {
            self.write_bundle(&sandbox, &snapshot, &path, lock).await?;
        }
        let (path, header) = (path.clone(), snapshot.clone());
        blocking(move || {
            let (sha256, size) = fingerprint(&path)?;
            let Header { base, head, files } = header;
            Ok(Some(Bundle { path, base, head, files, sha256, size }))
        })
        .await
    }

    async fn write_bundle(
        &self,
        sandbox: &Sandbox,
        snapshot: &Header,
        path: &Path,
        lock: &FileLock,
    ) -> Result<(), GitError> {
        let staged = path.with_extension("part");
        if let Some(folder) = path.parent() {
            let made = tokio::fs::create_dir_all(folder).await;
            made.map_err(GitError::file("make the folder", folder))?;
        }
        let mut bundle =
            self.invoke("bundle").args(["create", "--quiet"]).arg(&staged).arg(FILES_REF);
        // git leaves a ref without commits of its own out, and says so.
        if snapshot.head != snapshot.base {
            bundle = bundle.arg(HEAD_REF);
        }
        bundle
            .arg(format!("^{}", snapshot.base))
            .within(&sandbox.trusted)
            .holding(lock)
            .check()
            .await?;
        self.verify_bundle(sandbox, &staged, lock).await?;
        let path = path.to_owned();
        blocking(move || {
            let publish = || {
                let file = File::open(&staged)?;
                // The files of an agent may hold anything; they are for the owner alone.
                file.set_permissions(Permissions::from_mode(0o600))?;
                file.sync_all()?;
                fs::rename(&staged, &path)?;
                path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
            };
            publish().map_err(GitError::file("keep the bundle", &path))
        })
        .await
    }

    /// Has git read the whole bundle; a file that is cut short or belongs elsewhere is an error.
    pub(super) async fn verify_bundle(
        &self,
        sandbox: &Sandbox,
        bundle: &Path,
        lock: &FileLock,
    ) -> Result<(), GitError> {
        let verify = self.invoke("bundle").args(["verify", "--quiet"]).arg(bundle);
        verify.within(&sandbox.trusted).holding(lock).check().await.map(drop)
    }
}

impl Sandbox {
    /// Stores the files of the checkout as a commit beside the branch, and names both for a bundle.
    /// The caller holds the lock of the order.
    fn snapshot(&self, contents: Contents, reading: &Reading) -> Result<Header, GitError> {
        let (repository, tree) = match Worktree::open(self, reading) {
            Ok(worktree) => {
                let mut tree = match remembered(&worktree.repository) {
                    // Whoever looked at the files was not done, and what it changed is not kept.
                    Some(before) => before,
                    None => worktree.stage(&self.branch_head(&worktree.repository)?)?.tree,
                };
                if contents == Contents::Taken {
                    let base = self.base(&worktree.repository)?;
                    tree = with_contents(&worktree.repository, &base, tree)
                        .map_err(GitError::library("store the contents of Git LFS"))?;
                }
                (worktree.repository, Some(tree))
            }
            // The agent removed its own checkout: the commits are what is left.
            Err(GitError::NoCheckout { .. }) => {
                let bare = Repository::open_bare(&self.trusted)
                    .map_err(GitError::library("open the trusted repository"))?;
                (bare, None)
            }
            Err(error) => return Err(error),
        };
        let head = self.branch_head(&repository)?;
        let redactor = self.git.redactor();
        let tree = tree.map(|tree| cut_secrets(redactor, &repository, &head, tree)).transpose();
        let tree = tree.map_err(GitError::library("cut secrets out of the files of the agent"))?;
        let keep = || {
            let files = match tree {
                Some(tree) if tree != head.tree_id() => {
                    self.files_commit(&repository, &head, tree)?
                }
                _ => head.id(),
            };
            for (name, id) in [(HEAD_REF, head.id()), (FILES_REF, files)] {
                // Left by a process that was killed; the lock of the order says that it is gone.
                let _ = fs::remove_file(self.trusted.join(format!("{name}.lock")));
                repository.reference(name, id, true, "saved by archon-awo")?;
            }
            Ok(files)
        };
        let files = keep().map_err(GitError::library("store the files of the agent"))?;
        Ok(Header {
            base: self.base_commit.clone(),
            head: head.id().to_string(),
            files: files.to_string(),
        })
    }

    /// A commit of the files, the last one when it already holds them: saving twice makes one bundle.
    fn files_commit(
        &self,
        repository: &Repository,
        head: &Commit<'_>,
        tree: Oid,
    ) -> Result<Oid, git2::Error> {
        let last = repository.refname_to_id(FILES_REF).and_then(|id| repository.find_commit(id));
        if let Ok(last) = last
            && last.tree_id() == tree
            && last.parent_id(0).is_ok_and(|parent| parent == head.id())
        {
            return Ok(last.id());
        }
        let settings = self.git.settings();
        let author = Signature::now(&settings.author_name, &settings.author_email)?;
        let message = format!("Uncommitted files of {}\n", self.order);
        let tree = repository.find_tree(tree)?;
        repository.commit(None, &author, &author, &message, &tree, &[head])
    }

    /// Whether the remote has `head` on the order's branch, also below commits of others that we
    /// know. No answer counts as no: saving too much costs little.
    async fn is_pushed(&self, remote: Option<&Remote>, head: &str) -> bool {
        let Some(remote) = remote else { return false };
        let there = match self.git.branch_head(remote, &self.branch).await {
            Ok(there) => there,
            Err(error) => {
                tracing::info!(order = %self.order, "cannot ask what is pushed, so all is saved: {error}");
                return false;
            }
        };
        let Some(there) = there else { return false };
        if there == head {
            return true;
        }
        let (trusted, head) = (self.trusted.clone(), head.to_owned());
        let above = blocking(move || {
            let check = || {
                let repository = Repository::open_bare(&trusted)?;
                let (there, head) = (Oid::from_str(&there)?, Oid::from_str(&head)?);
                Ok::<bool, git2::Error>(builds_on(&repository, there, head))
            };
            Ok(check().unwrap_or(false))
        });
        above.await.unwrap_or(false)
    }
}

impl Header {
    /// Reads the header of a bundle.
    pub(super) fn read(path: &Path) -> Result<Self, GitError> {
        let file = File::open(path).map_err(GitError::file("open the bundle", path))?;
        Self::parse(BufReader::new(file.take(HEADER_LIMIT))).ok_or_else(|| {
            GitError::Unusable(format!("{} is not a bundle of archon-awo", path.display()))
        })
    }

    fn parse(reader: impl BufRead) -> Option<Self> {
        let mut lines = reader.lines();
        if !lines.next()?.ok()?.ends_with(" git bundle") {
            return None;
        }
        let (mut base, mut head, mut files) = (None, None, None);
        for line in lines {
            let line = line.ok()?;
            if line.is_empty() {
                break;
            }
            if let Some(prerequisite) = line.strip_prefix('-') {
                base = prerequisite.split(' ').next().map(str::to_owned);
            } else if let Some((sha, name)) = line.split_once(' ') {
                match name {
                    HEAD_REF => head = Some(sha.to_owned()),
                    FILES_REF => files = Some(sha.to_owned()),
                    _ => {}
                }
            }
        }
        let base = base?;
        for sha in [Some(&base), head.as_ref(), files.as_ref()].into_iter().flatten() {
            Oid::from_str(sha).ok()?;
        }
        Some(Self { head: head.unwrap_or_else(|| base.clone()), files: files?, base })
    }
}

/// SHA-256 in hex and size of a file.
pub(super) fn fingerprint(path: &Path) -> Result<(String, u64), GitError> {
    let read = || -> io::Result<_> {
        let (mut file, mut digest) = (File::open(path)?, Sha256::new());
        let size = io::copy(&mut file, &mut digest)?;
        Ok((digest.finalize(), size))
    };
    let (digest, size) = read().map_err(GitError::file("read the bundle", path))?;
    Ok((format!("{digest:x}"), size))
}

#[cfg(test)]
mod tests {
    use super::Header;

    const SHA: &str = "0123456789012345678901234567890123456789";

    fn parse(text: &str) -> Option<Header> {
        Header::parse(text.as_bytes())
    }

    #[test]
    fn a_header_names_the_base_the_branch_and_the_files() {
        let files = SHA.replace('0', "a");
        let text =
            format!("# v2 git bundle\n-{SHA} Start here\n{files} refs/awo/bundle/files\n\nPACK");
        let header = parse(&text).unwrap();
        assert_eq!((header.base.as_str(), header.head.as_str()), (SHA, SHA));
        assert_eq!(header.files, files);
        let both = text.replace("\n\n", &format!("\n{files} refs/awo/bundle/head\n\n"));
        assert_eq!(parse(&both).unwrap().head, files);
    }

    #[test]
    fn other_files_and_other_bundles_are_refused() {
        let foreign = format!("# v2 git bundle\n-{SHA} x\n{SHA} refs/heads/main\n\n");
        let complete = format!("# v2 git bundle\n{SHA} refs/awo/bundle/files\n\n");
        let odd = format!("# v2 git bundle\n--upload-pack=x y\n{SHA} refs/awo/bundle/files\n\n");
        for text in ["", "PACK", "# v2 git bundle\n", &foreign, &complete, &odd] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
