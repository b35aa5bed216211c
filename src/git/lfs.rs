//! Moves contents of Git LFS between a remote and this volume with the program `git-lfs`, which never runs
//! where an agent has been: contents are fetched into the cache and sent from the trusted repository.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use git2::{AttrCheckFlags, AttrValue, Commit, Index, IndexEntry, Oid, Repository, Signature};

use super::{
    Git, GitError, Remote, Sandbox,
    ancestry::commits_between,
    blocking,
    index_entry::{EXECUTABLE, PLAIN},
    invocation::Invocation,
    lfs_content::{FILTER, LONGEST, Pointer},
    lock::FileLock,
    parts::Fresh,
    sparse::Cone,
};
use crate::disk::{DiskSpace, SystemDisk};

/// The verb of git that is this program.
pub(super) const LFS: &str = "lfs";
/// The most contents that are named to one call of `git-lfs`.
const AT_ONCE: usize = 500;

/// A file of a checkout that is a pointer yet.
#[derive(Debug, Clone)]
struct Waiting {
    path: PathBuf,
    pointer: Pointer,
    is_executable: bool,
}

impl Git {
    /// Fetches the contents of a fresh checkout and puts them in the place of their pointers.
    pub(super) async fn fill_lfs(&self, fresh: &Fresh<'_>) -> Result<(), GitError> {
        let (folder, parts) = (fresh.folder.clone(), fresh.parts.clone());
        let waiting = blocking(move || waiting(&folder, &Cone::of(&parts.sparse))).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        let sizes = waiting.iter().map(|file| file.pointer.size);
        self.require_room("what Git LFS keeps", sizes.fold(0, u64::saturating_add))?;
        let cache = fresh.mirror.path.clone();
        let missing: BTreeSet<Pointer> = waiting
            .iter()
            .filter(|file| file.pointer.stored(&cache).is_none())
            .map(|file| file.pointer.clone())
            .collect();
        if !missing.is_empty() {
            self.require_room_for_contents(&missing)?;
            self.fetch_contents(fresh, missing).await?;
        }
        let folder = fresh.folder.clone();
        blocking(move || {
            waiting.iter().try_for_each(|file| file.replace(&folder, &cache))?;
            forget(&folder, &waiting).map_err(GitError::library("note the contents of Git LFS"))
        })
        .await?;
        // The index learns the size and times of the contents.
        let refresh = self.invoke("update-index").args(["-q", "--refresh"]);
        let refresh = FILTER.iter().fold(refresh, |refresh, (key, value)| refresh.set(key, value));
        refresh
            .set("lfs.storage", &fresh.mirror.path.join("lfs").display().to_string())
            .within(&fresh.git_dir())
            .over(&fresh.folder)
            .holding(fresh.lock)
            .check()
            .await
            .map(drop)
    }

    /// Refuses what does not fit before it is fetched.
    fn require_room_for_contents(&self, missing: &BTreeSet<Pointer>) -> Result<(), GitError> {
        let bytes = missing.iter().fold(0u64, |sum, pointer| sum.saturating_add(pointer.size));
        // Once in the cache and once in the checkout.
        let needed = bytes.saturating_mul(2);
        let mib = needed >> 20;
        match SystemDisk.space(self.volume().root()) {
            Ok(space) if space.total_bytes < needed => Err(GitError::Unusable(format!(
                "the contents of Git LFS take {mib} MiB, more than the whole volume has: set lfs to \
                 false in the repository's policy"
            ))),
            Ok(space) if space.free_bytes < needed => Err(GitError::DiskFull {
                doing: "fetching contents of Git LFS".to_owned(),
                detail: format!("they take {mib} MiB, and {} are free", space.free_bytes >> 20),
            }),
            _ => Ok(()),
        }
    }

    /// Fetches contents into the cache. `git-lfs` fetches those that a commit names, so one is made that
    /// names exactly these.
    async fn fetch_contents(
        &self,
        fresh: &Fresh<'_>,
        missing: BTreeSet<Pointer>,
    ) -> Result<(), GitError> {
        let git_dir = fresh.git_dir();
        let wanted = {
            let (git_dir, missing) = (git_dir.clone(), missing.clone());
            blocking(move || {
                commit_of(&git_dir, &missing).map_err(GitError::library("list contents of Git LFS"))
            })
        };
        let wanted = wanted.await?.to_string();
        let remote = &fresh.mirror.remote;
        let fetched = self
            .invoke_lfs(remote)
            .set("lfs.storage", &fresh.mirror.path.join("lfs").display().to_string())
            .args(["fetch", "origin", &wanted])
            .within(&git_dir)
            .holding(fresh.lock)
            .check()
            .await;
        let lacks_some = || {
            GitError::Unusable(format!(
                "{} does not have the contents of Git LFS that all of its files stand for: push them \
                 there, or set lfs to false in the repository's policy",
                remote.url
            ))
        };
        match fetched {
            Err(GitError::NotFound { .. }) => return Err(lacks_some()),
            Err(error) => return Err(without_program(error, remote)),
            Ok(_) => {}
        }
        let cache = fresh.mirror.path.clone();
        let whole = missing.iter().all(|pointer| pointer.stored(&cache).is_some());
        if whole { Ok(()) } else { Err(lacks_some()) }
    }

    /// A call of `git-lfs` that heeds none of the addresses a repository names.
    fn invoke_lfs<'a>(&'a self, remote: &'a Remote) -> Invocation<'a> {
        let url = remote.url.clone_url();
        let server = match remote.url.local_path() {
            Some(_) => url.to_owned(),
            None => format!("{}.git/info/lfs", url.strip_suffix(".git").unwrap_or(url)),
        };
        self.invoke(LFS)
            .set("remote.origin.url", url)
            .set("remote.origin.lfsurl", &server)
            .set("lfs.url", &server)
            .set("lfs.pushurl", &server)
            .set("lfs.fetchinclude", "")
            .set("lfs.fetchexclude", "")
            .set("lfs.locksverify", "false")
            .set("lfs.skipdownloaderrors", "false")
            .set("lfs.allowincompletepush", "false")
            .with_remote(remote)
    }
}

impl Sandbox {
    /// Sends the contents that the commits of this order stand for, before the commits.
    pub(super) async fn send_contents(
        &self,
        remote: &Remote,
        lock: &FileLock,
    ) -> Result<(), GitError> {
        if !self.parts.lfs {
            return Ok(());
        }
        let sandbox = self.clone();
        let own = blocking(move || {
            sandbox.own_contents().map_err(GitError::library("list contents of Git LFS"))
        });
        let own: Vec<String> = own.await?.into_iter().map(|pointer| pointer.oid).collect();
        for some in own.chunks(AT_ONCE) {
            let sent = self
                .git
                .invoke_lfs(remote)
                .args(["push", "--object-id", "origin"])
                .args(some)
                .within(&self.trusted)
                .holding(lock)
                .check()
                .await;
            sent.map_err(|error| without_program(error, remote))?;
        }
        Ok(())
    }

    /// The contents that the order's own commits name and the trusted repository has.
    fn own_contents(&self) -> Result<BTreeSet<Pointer>, git2::Error> {
        let repository = Repository::open_bare(&self.trusted)?;
        let head = repository.refname_to_id(&self.branch.full_ref())?;
        let own = commits_between(&repository, head, Oid::from_str(&self.base_commit)?)?;
        let mut found = BTreeSet::new();
        for id in own.unwrap_or_default() {
            let commit = repository.find_commit(id)?;
            let parent = commit.parent(0).and_then(|parent| parent.tree()).ok();
            let tree = commit.tree()?;
            let diff = repository.diff_tree_to_tree(parent.as_ref(), Some(&tree), None)?;
            let files = diff.deltas().map(|delta| delta.new_file().id());
            let pointers = files.filter_map(|id| pointer_at(&repository, id));
            found.extend(pointers.filter(|pointer| pointer.stored(&self.trusted).is_some()));
        }
        Ok(found)
    }
}

impl Waiting {
    /// Puts the content in the place of the pointer.
    fn replace(&self, checkout: &Path, cache: &Path) -> Result<(), GitError> {
        let (from, to) = (self.pointer.place(cache), checkout.join(&self.path));
        let mode = if self.is_executable { 0o755 } else { 0o644 };
        fs::remove_file(&to)
            .and_then(|()| fs::copy(&from, &to))
            .and_then(|_| fs::set_permissions(&to, fs::Permissions::from_mode(mode)))
            .map_err(GitError::file("write the content of", &to))
    }
}

/// The pointer that a file of a commit is.
pub(super) fn pointer_at(repository: &Repository, id: Oid) -> Option<Pointer> {
    let (size, _) = repository.odb().ok()?.read_header(id).ok()?;
    if size as u64 > LONGEST {
        return None;
    }
    Pointer::parse(repository.find_blob(id).ok()?.content())
}

/// Whether the rules of the checkout want a file kept by Git LFS.
pub(super) fn is_kept(repository: &Repository, path: &Path) -> bool {
    let rule = repository.get_attr(path, "filter", AttrCheckFlags::FILE_THEN_INDEX);
    matches!(rule.map(AttrValue::from_string), Ok(AttrValue::String("lfs")))
}

/// The same tree with the contents that only this repository has in the place of their pointers.
pub(super) fn with_contents(
    repository: &Repository,
    base: &Commit<'_>,
    tree: Oid,
) -> Result<Oid, git2::Error> {
    let new = repository.find_tree(tree)?;
    let diff = repository.diff_tree_to_tree(Some(&base.tree()?), Some(&new), None)?;
    let mut index = Index::new()?;
    index.read_tree(&new)?;
    for file in diff.deltas().map(|delta| delta.new_file()) {
        let content =
            pointer_at(repository, file.id()).and_then(|pointer| pointer.stored(repository.path()));
        let known = file.path().and_then(|path| index.get_path(path, 0));
        if let (Some(content), Some(known)) = (content, known) {
            let id = repository.blob_path(&content)?;
            index.add(&IndexEntry { id, ..known })?;
        }
    }
    index.write_tree_to(repository)
}

/// The files of a fresh checkout whose contents are elsewhere.
fn waiting(checkout: &Path, cone: &Cone<'_>) -> Result<Vec<Waiting>, GitError> {
    let find = || {
        let repository = Repository::open(checkout)?;
        let mut found = Vec::new();
        for entry in repository.index()?.iter() {
            let is_file = entry.mode == PLAIN || entry.mode == EXECUTABLE;
            if !is_file || u64::from(entry.file_size) > LONGEST || !cone.holds(&entry.path) {
                continue;
            }
            let Some(pointer) = pointer_at(&repository, entry.id) else { continue };
            let path = PathBuf::from(OsString::from_vec(entry.path));
            if is_kept(&repository, &path) {
                let is_executable = entry.mode == EXECUTABLE;
                found.push(Waiting { path, pointer, is_executable });
            }
        }
        Ok(found)
    };
    find().map_err(GitError::library("look for files of Git LFS"))
}

/// Empties what an index knows of the sizes of files: git takes another size for a change, without a look
/// at what the filter makes of the content.
fn forget(checkout: &Path, files: &[Waiting]) -> Result<(), git2::Error> {
    let mut index = Repository::open(checkout)?.index()?;
    for file in files {
        if let Some(known) = index.get_path(&file.path, 0) {
            index.add(&IndexEntry { file_size: 0, ..known })?;
        }
    }
    index.write()
}

/// A commit with these pointers as its only files.
fn commit_of(git_dir: &Path, pointers: &BTreeSet<Pointer>) -> Result<Oid, git2::Error> {
    let repository = Repository::open_bare(git_dir)?;
    let mut folder = repository.treebuilder(None)?;
    for pointer in pointers {
        let blob = repository.blob(pointer.text().as_bytes())?;
        folder.insert(&pointer.oid, blob, 0o100_644)?;
    }
    let tree = repository.find_tree(folder.write()?)?;
    let author = Signature::now("archon-awo", "archon-awo@users.noreply.github.com")?;
    let none: [&Commit<'_>; 0] = [];
    repository.commit(None, &author, &author, "Contents to fetch", &tree, &none)
}

/// Says what to do when there is no `git-lfs`.
fn without_program(error: GitError, remote: &Remote) -> GitError {
    match error {
        GitError::Failed { detail, .. } if detail.contains("'lfs' is not a git command") => {
            GitError::Unusable(format!(
                "{} has files of Git LFS and git-lfs is not installed: install it on every worker, or \
                 set lfs to false in the repository's policy",
                remote.url
            ))
        }
        other => other,
    }
}
