//! Fetches the submodules of a fresh checkout: each through the gate for addresses and from a cache of its
//! own, as if an order had named it.
//!
//! What a repository calls its submodules is never used as a path: each keeps its `.git` in its own folder,
//! which the index names.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use git2::{Config, Oid, Repository};

use super::{
    Git, GitError, Mirror, Parts, Remote, blocking,
    index_entry::SUBMODULE,
    objects::{Purpose, new_repository, put},
    parts::Fresh,
    sandbox::is_folder,
    shallow::has_commit,
    sparse::Cone,
    tree_size::{self, Weight},
};
use crate::{
    domain::{RepositoryUrl, SandboxType},
    local_remotes::NamedBy,
};

/// The most submodules of one checkout, those of submodules included.
const MOST: usize = 200;
/// The deepest that submodules may lie in each other.
const DEEPEST: usize = 6;
/// Where a repository says what its submodules are.
const LIST: &str = ".gitmodules";

/// What is left to be fetched.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
    depth: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: MOST, depth: 0 }
    }
}

/// A folder for which another repository's commit stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    path: String,
    commit: String,
}

impl Git {
    /// Fetches the submodules that the index names; answers the folders of objects they borrow from.
    pub(super) async fn fill_submodules(
        &self,
        fresh: &Fresh<'_>,
        budget: &mut Budget,
    ) -> Result<Vec<PathBuf>, GitError> {
        let (folder, parts) = (fresh.folder.clone(), fresh.parts.clone());
        let (links, is_listed) = blocking(move || links(&folder, &parts)).await?;
        if links.is_empty() || !is_listed {
            return Ok(Vec::new());
        }
        if budget.depth == DEEPEST || links.len() > budget.left {
            let problem = format!(
                "{} has more than {MOST} submodules, or more than {DEEPEST} in each other: set \
                 submodules to false in the repository's policy",
                fresh.mirror.remote.url
            );
            return Err(GitError::Unusable(problem));
        }
        budget.left -= links.len();
        budget.depth += 1;
        let addresses = self.addresses(fresh).await?;
        let mut borrowed = Vec::new();
        for link in links {
            let Some(address) = addresses.get(&link.path) else {
                tracing::warn!(
                    path = link.path,
                    "{LIST} does not say where this submodule is from"
                );
                continue;
            };
            let remote = self.submodule_remote(&fresh.mirror.remote, &link, address).await?;
            borrowed.extend(Box::pin(self.fill_submodule(fresh, &link, remote, budget)).await?);
        }
        budget.depth -= 1;
        borrowed.sort();
        borrowed.dedup();
        Ok(borrowed)
    }

    /// The addresses of the submodules by their folders.
    async fn addresses(&self, fresh: &Fresh<'_>) -> Result<BTreeMap<String, String>, GitError> {
        let listed = self
            .invoke("config")
            .args(["--blob", &format!(":{LIST}"), "--no-includes", "--null", "--list"])
            .within(&fresh.git_dir())
            .over(&fresh.folder)
            .run()
            .await?;
        if listed.status.success() {
            return Ok(read(&listed.stdout));
        }
        let reason = listed.stderr.lines().next().unwrap_or_default();
        let problem = format!("{LIST} of {} cannot be read: {reason}", fresh.mirror.remote.url);
        Err(GitError::Unusable(problem))
    }

    /// The gate: an address that an order may not name is not fetched for a submodule either.
    async fn submodule_remote(
        &self,
        parent: &Remote,
        link: &Link,
        address: &str,
    ) -> Result<Remote, GitError> {
        let address = absolute(parent.url.clone_url(), address);
        let refused = |reason: String| {
            let problem = format!(
                "the submodule {:?} cannot be fetched: {reason}; allow its address, or set \
                 submodules to false in the repository's policy",
                link.path
            );
            GitError::Unusable(problem)
        };
        // Without a host it would be somebody's folder for git, and a name at GitHub for orders.
        if !address.contains(':') {
            return Err(refused(format!("its address {address:?} has no host")));
        }
        let settings = self.settings();
        let url = RepositoryUrl::parse(&address, &settings.remotes)
            .map_err(|error| refused(error.to_string()))?;
        let remote = Remote { credential: settings.credentials.for_url(&url), url };
        let checked = self.require_remote(&remote, NamedBy::Repository).await;
        checked.map_err(|error| refused(error.to_string()))?;
        Ok(remote)
    }

    async fn fill_submodule(
        &self,
        parent: &Fresh<'_>,
        link: &Link,
        remote: Remote,
        budget: &mut Budget,
    ) -> Result<Vec<PathBuf>, GitError> {
        let mirror = self.refresh_mirror_of(&remote, parent.mirror.history).await?;
        self.fetch_commit(&mirror, &link.commit).await?;
        if !has_commit(mirror.path.clone(), link.commit.clone()).await? {
            let (Link { path, commit }, url) = (link, &remote.url);
            let problem = format!(
                "the submodule {path:?} stands for commit {commit}, which {url} does not have: push it \
                 there, or set submodules to false in the repository's policy"
            );
            return Err(GitError::Unusable(problem));
        }
        // The folders of a sparse checkout are those of the repository itself.
        let parts = Parts { sparse: Vec::new(), ..parent.parts.clone() };
        let fresh = Fresh {
            mirror: &mirror,
            form: parent.form,
            parts: &parts,
            folder: parent.folder.join(&link.path),
            lock: parent.lock,
        };
        let (folder, from, form, link) =
            (parent.folder.clone(), mirror.clone(), parent.form, link.clone());
        let path = link.path.clone();
        let quiet = self.quiet(&mirror, form).await?;
        let laid_out = blocking(move || {
            let made = lay_out(&folder, &link, &from, form);
            drop(quiet);
            made
        });
        let weight = laid_out.await?;
        self.require_room(&format!("the submodule {path:?}"), weight.bytes)?;
        let written = self
            .invoke("read-tree")
            .args(["--reset", "-u", "HEAD"])
            .within(&fresh.git_dir())
            .over(&fresh.folder)
            .holding(parent.lock)
            .ending_with_us()
            .check();
        self.within_quota(&fresh.folder, weight, written).await?;
        let mut borrowed = self.fill_within(&fresh, budget).await?;
        if parent.form == SandboxType::GitWorktree {
            borrowed.push(mirror.path.join("objects"));
        }
        Ok(borrowed)
    }
}

/// Makes the repository of a submodule in the empty folder that git has made for it.
fn lay_out(
    checkout: &Path,
    link: &Link,
    mirror: &Mirror,
    form: SandboxType,
) -> Result<Weight, GitError> {
    let mut folder = checkout.to_owned();
    for name in Path::new(&link.path).components() {
        folder.push(name);
        if !is_folder(&folder) {
            fs::create_dir(&folder).map_err(GitError::file("make the folder", &folder))?;
        }
    }
    let cache = Repository::open_bare(&mirror.path)
        .map_err(GitError::library("open the repository cache"))?;
    let commit = Oid::from_str(&link.commit).map_err(GitError::library("read a commit's name"))?;
    let weight = tree_size::weigh(&cache, commit)?;
    new_repository(&folder, Purpose::Checkout, &mirror.path, form)?;
    let git_dir = folder.join(".git");
    put(&git_dir, "HEAD", format!("{}\n", link.commit).as_bytes())?;
    let write = || {
        let mut config = Config::open(&git_dir.join("config"))?;
        config.set_str("remote.origin.url", mirror.remote.url.clone_url())
    };
    write().map_err(GitError::library("write the configuration of a submodule"))?;
    Ok(weight)
}

/// The links of a checkout's index, and whether the list of submodules is a file of it.
fn links(checkout: &Path, parts: &Parts) -> Result<(Vec<Link>, bool), GitError> {
    let read = || {
        let index = Repository::open(checkout)?.index()?;
        let cone = Cone::of(&parts.sparse);
        let links = index
            .iter()
            .filter(|entry| entry.mode == SUBMODULE && cone.holds(&entry.path))
            .filter_map(|entry| {
                let path = String::from_utf8(entry.path).ok()?;
                Some(Link { path, commit: entry.id.to_string() })
            });
        Ok((links.collect(), index.get_path(Path::new(LIST), 0).is_some()))
    };
    read().map_err(GitError::library("read the index of the checkout"))
}

/// Reads what `git config --null --list` printed.
fn read(listing: &str) -> BTreeMap<String, String> {
    let mut found: BTreeMap<&str, (Option<&str>, Option<&str>)> = BTreeMap::new();
    for (key, value) in listing.split('\0').filter_map(|entry| entry.split_once('\n')) {
        let Some((name, field)) =
            key.strip_prefix("submodule.").and_then(|key| key.rsplit_once('.'))
        else {
            continue;
        };
        let entry = found.entry(name).or_default();
        match field {
            "path" => entry.0 = Some(value.trim_end_matches('/')),
            "url" => entry.1 = Some(value),
            _ => {}
        }
    }
    let complete = found.into_values().filter_map(|(path, url)| path.zip(url));
    complete.map(|(path, url)| (path.to_owned(), url.to_owned())).collect()
}

/// An address that may be relative to that of the parent, as git reads it.
fn absolute(parent: &str, address: &str) -> String {
    let (mut base, mut rest) = (parent.trim_end_matches('/'), address);
    loop {
        if let Some(up) = rest.strip_prefix("../") {
            base = base.rsplit_once('/').map_or("", |(above, _)| above);
            rest = up;
        } else if let Some(here) = rest.strip_prefix("./") {
            rest = here;
        } else {
            break;
        }
    }
    if rest.len() == address.len() { address.to_owned() } else { format!("{base}/{rest}") }
}

#[cfg(test)]
mod tests {
    use super::{absolute, read};

    #[test]
    fn relative_addresses_are_those_beside_the_parent() {
        let parent = "https://h.example/acme/app.git";
        for (address, expected) in [
            ("../lib.git", "https://h.example/acme/lib.git"),
            ("../../other/lib", "https://h.example/other/lib"),
            ("./sub.git", "https://h.example/acme/app.git/sub.git"),
            ("https://x.example/a/b", "https://x.example/a/b"),
            ("../../../../../etc", "/etc"),
            ("lib", "lib"),
        ] {
            assert_eq!(absolute(parent, address), expected, "{address}");
        }
    }

    #[test]
    fn names_with_dots_and_half_entries_are_read() {
        let listing = "submodule.a.b.path\nlibs/ab/\0submodule.a.b.url\n../ab\0\
                       submodule.half.path\nx\0core.pager\nevil\0odd\0";
        let found = read(listing);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("libs/ab".into(), "../ab".into())]);
    }
}
