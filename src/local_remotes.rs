//! Which folders of this host may be remotes: judged whenever one is used, by where its path really leads.
//!
//! Whoever may order work names the folder, and it is opened with the rights of the worker: those of the product
//! hold the work and the secrets of other orders, and agents choose what is in theirs.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The folders that may be remotes, and those that may not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalRemotes {
    /// `AWO_LOCAL_REMOTES`: only what lies below one of these; empty for any folder.
    pub roots: Vec<PathBuf>,
    /// Nothing in or around these: what the product keeps, and what agents write.
    pub kept: Vec<PathBuf>,
}

/// Who names a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// An order, or an administrator.
    Order,
    /// The list of submodules in a repository, which anybody may have written.
    Repository,
}

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum RefusedFolder {
    /// There is none.
    #[error("the folder {0} is not there")]
    Missing(PathBuf),
    /// It cannot be looked at.
    #[error("the folder {folder} cannot be looked at: {error}")]
    Unreadable {
        /// The folder.
        folder: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// It is ours, or holds what is.
    #[error(
        "the folder {folder} is no remote: it leads to {target}, in or around {kept}, which archon-awo keeps or \
         agents write; put the repository somewhere else"
    )]
    Kept {
        /// The folder as it was named.
        folder: PathBuf,
        /// Where it leads.
        target: PathBuf,
        /// The folder that nothing may be near.
        kept: PathBuf,
    },
    /// It is not where remotes are.
    #[error("the folder {folder} is no remote: it leads to {target}, which is not below {roots}")]
    Elsewhere {
        /// The folder as it was named.
        folder: PathBuf,
        /// Where it leads.
        target: PathBuf,
        /// What is allowed, in words.
        roots: String,
    },
}

impl LocalRemotes {
    /// The same, with one more folder that is kept.
    #[must_use]
    pub fn keeping(mut self, folder: &Path) -> Self {
        self.kept.push(folder.to_owned());
        self
    }

    /// An error unless `folder` may be used. Blocks on the disk.
    pub fn check(&self, folder: &Path, named_by: NamedBy) -> Result<(), RefusedFolder> {
        let mut targets = vec![leads_to(folder)?];
        // Git takes what is below for the repository, wherever that leads.
        match leads_to(&folder.join(".git")) {
            Ok(target) => targets.push(target),
            Err(RefusedFolder::Missing(_)) => {}
            Err(error) => return Err(error),
        }
        targets.into_iter().try_for_each(|target| self.check_target(folder, target, named_by))
    }

    fn check_target(
        &self,
        folder: &Path,
        target: PathBuf,
        named_by: NamedBy,
    ) -> Result<(), RefusedFolder> {
        for kept in &self.kept {
            let real = leads_to(kept).unwrap_or_else(|_| kept.clone());
            if target.starts_with(&real) || real.starts_with(&target) {
                let (folder, kept) = (folder.to_owned(), kept.clone());
                return Err(RefusedFolder::Kept { folder, target, kept });
            }
        }
        let below = |root: &PathBuf| leads_to(root).is_ok_and(|real| target.starts_with(real));
        let anywhere = self.roots.is_empty() && named_by == NamedBy::Order;
        if anywhere || self.roots.iter().any(below) {
            return Ok(());
        }
        let listed: Vec<String> =
            self.roots.iter().map(|root| root.display().to_string()).collect();
        let roots = if listed.is_empty() {
            "a folder that AWO_LOCAL_REMOTES names, as a submodule has to be".to_owned()
        } else {
            format!("{} (AWO_LOCAL_REMOTES)", listed.join(" or "))
        };
        Err(RefusedFolder::Elsewhere { folder: folder.to_owned(), target, roots })
    }
}

fn leads_to(path: &Path) -> Result<PathBuf, RefusedFolder> {
    fs::canonicalize(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => RefusedFolder::Missing(path.to_owned()),
        _ => RefusedFolder::Unreadable { folder: path.to_owned(), error },
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::PathBuf};

    use super::{LocalRemotes, NamedBy, RefusedFolder as E};

    fn folders() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["srv/git/app.git", "other/app.git", "volume/wo-1/app/.git", "srv/git/tree"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        symlink(root.join("volume/wo-1/app"), root.join("srv/git/link")).unwrap();
        symlink(root.join("volume/wo-1/app/.git"), root.join("srv/git/tree/.git")).unwrap();
        symlink(root.join("other"), root.join("srv/git/out")).unwrap();
        (folder, root)
    }

    #[test]
    fn what_is_kept_is_no_remote_however_it_is_named() {
        let (_folder, root) = folders();
        let any = LocalRemotes::default().keeping(&root.join("volume"));
        let check = |name: &str| any.check(&root.join(name), NamedBy::Order);
        for name in ["volume", "volume/wo-1/app", "", "srv/git/link", "srv/git/tree"] {
            assert!(matches!(check(name), Err(E::Kept { .. })), "{name:?}");
        }
        for name in ["srv/git/app.git", "other/app.git", "srv/git/out/app.git"] {
            check(name).expect(name);
        }
        assert!(matches!(check("nothing"), Err(E::Missing(_))));
    }

    #[test]
    fn only_what_lies_below_a_named_root_is_one() {
        let (_folder, root) = folders();
        let named = LocalRemotes { roots: vec![root.join("srv/git")], kept: Vec::new() };
        let check = |name: &str| named.check(&root.join(name), NamedBy::Repository);
        check("srv/git/app.git").unwrap();
        for name in ["other/app.git", "srv/git/out/app.git", "srv"] {
            let error = check(name).unwrap_err();
            assert!(error.to_string().contains("AWO_LOCAL_REMOTES"), "{error}");
        }
    }

    #[test]
    fn a_repository_names_no_folder_where_no_root_is_named() {
        let (_folder, root) = folders();
        let any = LocalRemotes::default();
        let app = root.join("other/app.git");
        any.check(&app, NamedBy::Order).unwrap();
        assert!(matches!(any.check(&app, NamedBy::Repository), Err(E::Elsewhere { .. })));
    }
}
